-- The one-billion-row challenge at 10 million rows: minimum, mean and maximum by weather station.
-- Run it with   millrace run examples/onebrc/onebrc.sql --set DATA=out/onebrc
-- after         python examples/onebrc/make_data.py out/onebrc

CREATE SOURCE measurements (station STRING, temperature DECIMAL(4, 1))
FROM FILE (path = '${DATA}/measurements.txt', delimiter = ';', header = 'false') FORMAT CSV;

SELECT station, min(temperature) AS low, avg(temperature) AS mean, max(temperature) AS high
FROM measurements
GROUP BY station;
