"""SQL text to statements: tokens, types, expressions and queries on top of sqlglot. Looks no name up."""
