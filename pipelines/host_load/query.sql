-- Load of each host in windows of 10 s.
--
-- cpu_utilization  1 - (idle + iowait) / (user + nice + system + idle + iowait + irq + softirq + steal), of the rises in the
--                  window; guest time is contained in user. Where no counters come: the mean of what the source reports
-- memory_used      1 - available / total
-- rates            rise / time between the rows that it spans: real time, no extrapolation
SELECT
    tumble(ts, INTERVAL '10 seconds') AS window_start,
    region,
    site,
    node,
    coalesce(
        1.0 - (sum(cpu_idle_seconds_increase) + coalesce(sum(cpu_iowait_seconds_increase), 0.0)) / nullif(
            sum(cpu_user_seconds_increase) + coalesce(sum(cpu_nice_seconds_increase), 0.0) + sum(cpu_system_seconds_increase)
            + sum(cpu_idle_seconds_increase) + coalesce(sum(cpu_iowait_seconds_increase), 0.0)
            + coalesce(sum(cpu_irq_seconds_increase), 0.0) + coalesce(sum(cpu_softirq_seconds_increase), 0.0)
            + coalesce(sum(cpu_steal_seconds_increase), 0.0), 0.0),
        avg(cpu_utilization)) AS cpu_utilization_ratio,
    avg(load1) AS load1,
    max(cpus) AS cpus,
    1.0 - avg(memory_available_bytes) / nullif(max(memory_total_bytes), 0.0) AS memory_used_ratio,
    max(memory_total_bytes) AS memory_total_bytes,
    sum(disk_read_bytes_increase) / nullif(sum(disk_read_bytes_increase_seconds), 0.0) AS disk_read_bytes_per_second,
    sum(disk_written_bytes_increase) / nullif(sum(disk_written_bytes_increase_seconds), 0.0) AS disk_written_bytes_per_second,
    max(fullest_filesystem_ratio) AS fullest_filesystem_ratio,
    avg(power_watts) AS power_watts
FROM host
GROUP BY tumble(ts, INTERVAL '10 seconds'), region, site, node
