-- Use of each network interface in windows of 10 s.
--
-- rates        rise / time between the rows that it spans: real time, no extrapolation
-- utilization  the busier direction's rate over the line rate of one direction; null where the rate of the line is not known
-- errors, drops  packets in the window, both directions
SELECT
    tumble(ts, INTERVAL '10 seconds') AS window_start,
    region,
    site,
    node,
    interface,
    sum(rx_bytes_increase) / nullif(sum(rx_bytes_increase_seconds), 0.0) AS receive_bytes_per_second,
    sum(tx_bytes_increase) / nullif(sum(tx_bytes_increase_seconds), 0.0) AS transmit_bytes_per_second,
    greatest(
        sum(rx_bytes_increase) / nullif(sum(rx_bytes_increase_seconds), 0.0),
        sum(tx_bytes_increase) / nullif(sum(tx_bytes_increase_seconds), 0.0)) / nullif(max(speed_bytes_per_second), 0.0)
        AS utilization_ratio,
    sum(rx_bytes_increase) AS receive_bytes,
    sum(tx_bytes_increase) AS transmit_bytes,
    coalesce(sum(rx_errors_increase), 0.0) + coalesce(sum(tx_errors_increase), 0.0) AS errors,
    coalesce(sum(rx_drops_increase), 0.0) + coalesce(sum(tx_drops_increase), 0.0) AS drops,
    min(up) AS up
FROM link
GROUP BY tumble(ts, INTERVAL '10 seconds'), region, site, node, interface
