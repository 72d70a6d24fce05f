-- The whole story of a site in one row a minute: accelerators, AI inference and timing, joined by site and window.
--
-- accelerators  whole devices only: rows of MIG slices and of cores are left out, so nothing is counted twice. Each device of each
--               node is aggregated first: a name may occur on two nodes, and devices tell different things of themselves
-- utilization   mean over the devices of their averages
-- headroom      1 - busy - 0.10 of the busiest device, not below 0 (see accelerator_capacity)
-- memory used   of all devices that tell both, added up
-- energy        joules of all devices of the site in the window
-- TTFT p99      of the merged histograms of all model servers of the site
-- joules per token  energy of the devices / tokens generated in the same window; it holds all energy of the devices, the radio's
--               share included
-- A site without one of the three still has its row, with nulls for what it does not have.
WITH devices AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        node,
        device,
        max(region) AS region,
        coalesce(avg(utilization), avg(engine_active)) AS utilization,
        coalesce(max(sm_active), max(engine_active), max(utilization)) AS busy,
        avg(memory_used_bytes) AS memory_used,
        coalesce(avg(memory_total_bytes),
            avg(memory_used_bytes) + avg(memory_free_bytes) + coalesce(avg(memory_reserved_bytes), 0.0)) AS memory_total,
        sum(energy_joules_increase) AS energy_joules
    FROM accelerator
    WHERE slice IS NULL AND core IS NULL
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site, node, device
),
accelerators AS (
    SELECT
        window_start,
        site,
        max(region) AS region,
        count(*) AS devices,
        avg(utilization) AS utilization_avg_ratio,
        CASE WHEN max(busy) > 0.9 THEN 0.0 ELSE 1.0 - max(busy) - 0.10 END AS headroom_ratio,
        sum(CASE WHEN memory_total IS NOT NULL THEN memory_used END)
            / nullif(sum(CASE WHEN memory_used IS NOT NULL THEN memory_total END), 0.0) AS memory_used_ratio,
        sum(energy_joules) AS energy_joules
    FROM devices
    GROUP BY window_start, site
),
inferences AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        max(region) AS region,
        histogram_quantile(0.99, histogram_merge(time_to_first_token_seconds_increase)) AS ttft_p99_seconds,
        sum(generation_tokens_increase) AS generation_tokens,
        max(requests_waiting) AS requests_waiting_max,
        max(kv_cache_usage_ratio) AS kv_cache_usage_max_ratio
    FROM inference
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site
),
clocks AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        max(region) AS region,
        max(abs(offset_seconds)) AS offset_max_seconds,
        avg(CASE WHEN clock_state = 'locked' THEN 0.0 WHEN clock_state IS NOT NULL THEN 1.0 END) AS not_locked_ratio
    FROM timing
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site
)
SELECT
    coalesce(a.window_start, i.window_start, c.window_start) AS window_start,
    coalesce(a.region, i.region, c.region) AS region,
    coalesce(a.site, i.site, c.site) AS site,
    a.devices AS accelerators,
    a.utilization_avg_ratio AS accelerator_utilization_avg_ratio,
    a.headroom_ratio AS accelerator_headroom_ratio,
    a.memory_used_ratio AS accelerator_memory_used_ratio,
    a.energy_joules AS accelerator_energy_joules,
    i.ttft_p99_seconds AS ttft_p99_seconds,
    i.generation_tokens AS generation_tokens,
    i.requests_waiting_max AS requests_waiting_max,
    i.kv_cache_usage_max_ratio AS kv_cache_usage_max_ratio,
    a.energy_joules / nullif(i.generation_tokens, 0.0) AS joules_per_token,
    c.offset_max_seconds AS clock_offset_max_seconds,
    c.not_locked_ratio AS clock_not_locked_ratio
FROM accelerators a
FULL JOIN inferences i ON a.window_start = i.window_start AND a.site = i.site
FULL JOIN clocks c ON coalesce(a.window_start, i.window_start) = c.window_start AND coalesce(a.site, i.site) = c.site
