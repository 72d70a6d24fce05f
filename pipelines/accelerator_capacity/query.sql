-- Capacity of each accelerator, and of each MIG slice beside it, in windows of 10 s.
--
-- utilization  share of time at least one kernel ran (DCGM_FI_DEV_GPU_UTIL); MIG slices do not report it, there it is the share
--              of time the engine was active (DCGM_FI_PROF_GR_ENGINE_ACTIVE)
-- headroom     1 - max(busy) - 0.10, not below 0; busy is SM activity, else engine activity, else utilisation; the guard of 10 %
--              is the lower end of what AI-RAN papers keep free for the radio's peaks
-- memory total as reported, else used + free + reserved
-- energy       joules used since the row before, summed over the window: a rise belongs to the window of its later row
-- XID errors   rise of the driver's count, where a source has one (NVML, nvidia_gpu_exporter); DCGM_FI_DEV_XID_ERRORS is the last
--              code and no count, so it is kept as such: the greatest of the window
--
-- Rows of single cores are left out, so nothing is counted twice; a slice and its parent are rows of their own: add up where
-- slice is null, or where it is not, never both.
SELECT
    tumble(ts, INTERVAL '10 seconds') AS window_start,
    region,
    site,
    node,
    device,
    slice,
    coalesce(avg(utilization), avg(engine_active)) AS utilization_avg_ratio,
    coalesce(max(utilization), max(engine_active)) AS utilization_max_ratio,
    avg(sm_active) AS sm_active_avg_ratio,
    avg(tensor_active) AS tensor_active_avg_ratio,
    avg(memory_used_bytes) AS memory_used_bytes,
    coalesce(max(memory_total_bytes), avg(memory_used_bytes) + avg(memory_free_bytes) + coalesce(avg(memory_reserved_bytes), 0.0))
        AS memory_total_bytes,
    coalesce(avg(memory_utilization), avg(memory_used_bytes) / coalesce(max(memory_total_bytes),
        avg(memory_used_bytes) + avg(memory_free_bytes) + coalesce(avg(memory_reserved_bytes), 0.0))) AS memory_used_ratio,
    avg(power_watts) AS power_watts,
    sum(energy_joules_increase) AS energy_joules,
    max(temperature_celsius) AS temperature_max_celsius,
    sum(xid_errors_increase) AS xid_errors,
    max(xid_last_code) AS xid_last_code,
    CASE WHEN coalesce(max(sm_active), max(engine_active), max(utilization)) > 0.9 THEN 0.0
        ELSE 1.0 - coalesce(max(sm_active), max(engine_active), max(utilization)) - 0.10 END AS headroom_ratio
FROM accelerator
WHERE core IS NULL
GROUP BY tumble(ts, INTERVAL '10 seconds'), region, site, node, device, slice
