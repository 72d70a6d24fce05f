-- The whole story of a site in one row a minute: accelerators, AI inference, timing and radio, joined by site and window.
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
--
-- radio         cells' PRB utilisation as in cell_capacity, mean over the cells and of the fullest one; transport-block bytes of both
--               directions; late / (early + on time + late) packets of all fronthaul (see fronthaul_deadlines)
-- RAN use       of a device: the most that its MIG instances of the radio used at once, sum(max(engine activity) * slices) / 7 (4 on an
--               A30; see mig_capacity), or the busiest report of a whole device. What no `workload` calls `ai` counts as the
--               radio's; where the size of an instance is not known, the whole device's busiest report
-- sellable      1 - RAN use - 0.10, not below 0: GPU headroom for AI = 1 - max over the window of the RAN's utilisation - guard of 10 to
--               20 % (AI-RAN papers). The guard is for the radio's peaks, so a device without radio is sellable as a whole. Mean over
--               the devices, and their sum in devices
-- energy by slice activity  a device's energy / its work, by the share of engine activity * slices of instances whose `workload` is
--               `ran` or `ai`; a whole device's goes to its own `workload`. Energy of devices and instances without one goes to neither
-- per bit       (energy the cells report + energy of the devices by slice activity for the radio) / bits of both directions: the
--               inverse of the energy efficiency of TS 28.554 6.7.1, with transport-block bits, retransmissions included, in place of
--               PDCP SDU bits
-- per token     energy of the devices by slice activity for AI / tokens generated
-- A site without one of the parts still has its row, with nulls for what it does not have.
WITH devices AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        node,
        device,
        max(region) AS region,
        coalesce(avg(utilization), avg(engine_active)) AS utilization,
        coalesce(max(sm_active), max(engine_active), max(utilization)) AS busy,
        max(model) AS model,
        max(workload) AS workload,
        avg(memory_used_bytes) AS memory_used,
        coalesce(avg(memory_total_bytes),
            avg(memory_used_bytes) + avg(memory_free_bytes) + coalesce(avg(memory_reserved_bytes), 0.0)) AS memory_total,
        sum(energy_joules_increase) AS energy_joules
    FROM accelerator
    WHERE slice IS NULL AND core IS NULL
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site, node, device
),
instances AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        node,
        device,
        slice,
        slice_profile,
        max(workload) AS workload,
        avg(engine_active) AS busy,
        max(engine_active) AS busiest,
        CAST(count(engine_active) AS DOUBLE) AS reports
    FROM accelerator
    WHERE slice IS NOT NULL AND core IS NULL
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site, node, device, slice, slice_profile
),
known AS (
    SELECT
        window_start,
        site,
        node,
        device,
        slice,
        max(slice_profile) AS slice_profile,
        max(workload) AS workload
    FROM instances
    GROUP BY window_start, site, node, device, slice
),
layout AS (
    SELECT
        i.window_start AS window_start,
        i.site AS site,
        i.node AS node,
        i.device AS device,
        i.slice AS slice,
        coalesce(i.workload, k.workload) AS workload,
        i.busy * i.reports AS activity,
        i.busiest AS busiest,
        TRY_CAST(split_part(split_part(split_part(coalesce(i.slice_profile, k.slice_profile), 'g.', 1), '.', -1), ' ', -1) AS DOUBLE)
            AS size
    FROM instances i
    JOIN known k ON i.window_start = k.window_start AND i.site = k.site AND i.node = k.node AND i.device = k.device
        AND i.slice = k.slice
),
slices AS (
    SELECT
        window_start,
        site,
        node,
        device,
        slice,
        max(CASE WHEN workload = 'ai' THEN 0.0 ELSE busiest * size END) AS ran_busiest_size,
        max(CASE WHEN workload = 'ai' THEN 0.0 ELSE 1.0 END) AS has_ran,
        max(CASE WHEN busiest IS NOT NULL AND size IS NULL THEN 1.0 ELSE 0.0 END) AS has_unknown,
        sum(activity * size) AS activity,
        sum(CASE WHEN workload = 'ran' THEN activity * size END) AS ran_activity,
        sum(CASE WHEN workload = 'ai' THEN activity * size END) AS ai_activity
    FROM layout
    GROUP BY window_start, site, node, device, slice
),
shares AS (
    SELECT
        window_start,
        site,
        node,
        device,
        sum(ran_busiest_size) AS ran_busiest_size,
        max(has_ran) AS has_ran,
        max(has_unknown) AS has_unknown,
        sum(ran_activity) / nullif(sum(activity), 0.0) AS ran_share,
        sum(ai_activity) / nullif(sum(activity), 0.0) AS ai_share
    FROM slices
    GROUP BY window_start, site, node, device
),
uses AS (
    SELECT
        d.window_start AS window_start,
        d.site AS site,
        d.node AS node,
        d.device AS device,
        d.region AS region,
        d.utilization AS utilization,
        d.busy AS busy,
        d.memory_used AS memory_used,
        d.memory_total AS memory_total,
        d.energy_joules AS energy_joules,
        CASE
            WHEN s.device IS NULL AND d.workload = 'ai' THEN 0.0
            WHEN s.device IS NULL OR s.has_unknown > 0.0 THEN d.busy
            ELSE s.ran_busiest_size / CASE WHEN contains(d.model, 'A30') THEN 4.0 ELSE 7.0 END
        END AS ran_busy,
        CASE
            WHEN s.device IS NULL THEN CASE WHEN d.workload = 'ai' THEN 0.0 ELSE 0.10 END
            WHEN s.has_ran > 0.0 THEN 0.10
            ELSE 0.0
        END AS guard,
        CASE
            WHEN s.device IS NULL THEN CASE WHEN d.workload = 'ran' THEN d.energy_joules END
            ELSE d.energy_joules * s.ran_share
        END AS ran_joules,
        CASE
            WHEN s.device IS NULL THEN CASE WHEN d.workload = 'ai' THEN d.energy_joules END
            ELSE d.energy_joules * s.ai_share
        END AS ai_joules
    FROM devices d
    LEFT JOIN shares s ON d.window_start = s.window_start AND d.site = s.site AND d.node = s.node AND d.device = s.device
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
        sum(energy_joules) AS energy_joules,
        max(ran_busy) AS ran_busy,
        avg(CASE WHEN ran_busy + guard > 1.0 THEN 0.0 ELSE 1.0 - ran_busy - guard END) AS sellable,
        sum(CASE WHEN ran_busy + guard > 1.0 THEN 0.0 ELSE 1.0 - ran_busy - guard END) AS sellable_devices,
        sum(ran_joules) AS ran_joules,
        sum(ai_joules) AS ai_joules
    FROM uses
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
),
cells AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        node,
        gnb,
        cell,
        max(region) AS region,
        coalesce(
            avg(dl_prb_utilization),
            avg(dl_prbs_used) / nullif(avg(dl_prbs_available), 0.0)) AS dl_prb_utilization,
        coalesce(sum(dl_bytes_increase), 0.0) + coalesce(sum(ul_bytes_increase), 0.0) AS bytes,
        sum(energy_joules_increase) AS energy_joules
    FROM cell
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site, node, gnb, cell
),
radio AS (
    SELECT
        window_start,
        site,
        max(region) AS region,
        count(*) AS cells,
        avg(dl_prb_utilization) AS dl_prb_utilization_avg,
        max(dl_prb_utilization) AS dl_prb_utilization_max,
        nullif(sum(bytes), 0.0) AS bytes,
        sum(energy_joules) AS energy_joules
    FROM cells
    GROUP BY window_start, site
),
packets AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        max(region) AS region,
        sum(rx_late_packets_increase) AS late,
        coalesce(sum(rx_early_packets_increase), 0.0) + sum(rx_on_time_packets_increase)
            + sum(rx_late_packets_increase) AS received
    FROM fronthaul
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site
)
SELECT
    coalesce(a.window_start, i.window_start, c.window_start, r.window_start, f.window_start) AS window_start,
    coalesce(a.region, i.region, c.region, r.region, f.region) AS region,
    coalesce(a.site, i.site, c.site, r.site, f.site) AS site,
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
    c.not_locked_ratio AS clock_not_locked_ratio,
    a.ran_busy AS ran_accelerator_utilization_max_ratio,
    a.sellable AS sellable_accelerator_headroom_ratio,
    a.sellable_devices AS sellable_accelerators,
    a.ran_joules AS ran_energy_by_slice_activity_joules,
    a.ai_joules AS ai_energy_by_slice_activity_joules,
    a.ai_joules / nullif(i.generation_tokens, 0.0) AS ai_joules_per_token_by_slice_activity,
    r.cells AS cells,
    r.dl_prb_utilization_avg AS dl_prb_utilization_avg_ratio,
    r.dl_prb_utilization_max AS dl_prb_utilization_max_ratio,
    r.bytes AS radio_bytes,
    r.energy_joules AS cell_energy_joules,
    CASE WHEN r.energy_joules IS NOT NULL OR a.ran_joules IS NOT NULL THEN
        (coalesce(r.energy_joules, 0.0) + coalesce(a.ran_joules, 0.0)) / (8.0 * r.bytes) END AS ran_joules_per_bit_by_slice_activity,
    f.late / nullif(f.received, 0.0) AS fronthaul_late_ratio
FROM accelerators a
FULL JOIN inferences i ON a.window_start = i.window_start AND a.site = i.site
FULL JOIN clocks c ON coalesce(a.window_start, i.window_start) = c.window_start AND coalesce(a.site, i.site) = c.site
FULL JOIN radio r ON coalesce(a.window_start, i.window_start, c.window_start) = r.window_start
    AND coalesce(a.site, i.site, c.site) = r.site
FULL JOIN packets f ON coalesce(a.window_start, i.window_start, c.window_start, r.window_start) = f.window_start
    AND coalesce(a.site, i.site, c.site, r.site) = f.site
