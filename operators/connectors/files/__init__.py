"""Files as source and sink: local disk and object stores."""
