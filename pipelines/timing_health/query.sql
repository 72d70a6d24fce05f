-- Health of each clock in windows of 60 s.
--
-- offset       of the absolute offset from the reference; p99.9 below 100 ns and never above 1.1 us is healthy (G.8271 leaves
--              1.5 us end to end to a TDD cell)
-- not locked   share of the window's reports whose state is not `locked`, times the window's length
-- clock class  the worst of the window: 6 is locked to a primary reference, 248 is free-running
SELECT
    tumble(ts, INTERVAL '60 seconds') AS window_start,
    region,
    site,
    node,
    process,
    interface,
    reference,
    approx_percentile_cont(0.50) WITHIN GROUP (ORDER BY abs(offset_seconds)) AS offset_p50_seconds,
    approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY abs(offset_seconds)) AS offset_p99_seconds,
    approx_percentile_cont(0.999) WITHIN GROUP (ORDER BY abs(offset_seconds)) AS offset_p999_seconds,
    max(abs(offset_seconds)) AS offset_max_seconds,
    max(path_delay_seconds) AS path_delay_max_seconds,
    avg(CASE WHEN clock_state = 'locked' THEN 0.0 WHEN clock_state IS NOT NULL THEN 1.0 END) AS not_locked_ratio,
    60.0 * avg(CASE WHEN clock_state = 'locked' THEN 0.0 WHEN clock_state IS NOT NULL THEN 1.0 END) AS not_locked_seconds,
    max(clock_class) AS clock_class_max,
    sum(process_restarts_increase) AS process_restarts
FROM timing
GROUP BY tumble(ts, INTERVAL '60 seconds'), region, site, node, process, interface, reference
