-- Devices that MIG cuts into slices, in windows of 60 s: each slice joined to its layout as its rows tell it at their time.
--
-- size         slices of a MIG instance: the digit before the `g` of its profile (3g.40gb has 3). A row without a profile has that of
--              the other rows of its slice in the window
-- weight       reports of a slice under a profile / the most reports of a slice of its device: a slice that was there for half the window,
--              because the device was cut anew, counts for half of it
-- utilization  sum(instance utilisation * slices) / 7, weighted so (MIG-weighted utilisation; the parent's own rows are not in it).
--              Utilisation of an instance is its engine activity; an A30 has 4 slices in place of 7
-- allocated    slices in instances, and how busy these alone are
-- ran, ai      the same sum over the instances whose `workload` says so
-- device       the parent's own rows: its engine activity, power and energy beside the slices, never added to them
WITH reports AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        node,
        device,
        slice,
        slice_profile,
        max(region) AS region,
        max(model) AS model,
        max(workload) AS workload,
        avg(engine_active) AS busy,
        CAST(count(engine_active) AS DOUBLE) AS reports,
        avg(memory_used_bytes) AS memory_used,
        coalesce(avg(memory_total_bytes),
            avg(memory_used_bytes) + avg(memory_free_bytes) + coalesce(avg(memory_reserved_bytes), 0.0)) AS memory_total
    FROM accelerator
    WHERE slice IS NOT NULL AND core IS NULL
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site, node, device, slice, slice_profile
),
slices AS (
    SELECT
        window_start,
        site,
        node,
        device,
        slice,
        max(slice_profile) AS slice_profile,
        max(workload) AS workload,
        sum(reports) AS reports
    FROM reports
    GROUP BY window_start, site, node, device, slice
),
layout AS (
    SELECT
        r.window_start AS window_start,
        r.site AS site,
        r.node AS node,
        r.device AS device,
        r.slice AS slice,
        r.region AS region,
        r.model AS model,
        coalesce(r.workload, s.workload) AS workload,
        r.busy AS busy,
        r.reports AS reports,
        s.reports AS of_slice,
        r.memory_used AS memory_used,
        r.memory_total AS memory_total,
        coalesce(r.slice_profile, s.slice_profile) AS profile,
        TRY_CAST(split_part(split_part(split_part(coalesce(r.slice_profile, s.slice_profile), 'g.', 1), '.', -1), ' ', -1) AS DOUBLE)
            AS size
    FROM reports r
    JOIN slices s ON r.window_start = s.window_start AND r.site = s.site AND r.node = s.node AND r.device = s.device
        AND r.slice = s.slice
),
cut AS (
    SELECT
        window_start,
        site,
        node,
        device,
        max(region) AS region,
        max(model) AS model,
        count(DISTINCT slice) AS instances,
        nullif(max(of_slice), 0.0) AS instants,
        sum(size * reports) AS size_reports,
        sum(busy * size * reports) AS busy_reports,
        sum(CASE WHEN workload = 'ran' THEN busy * size * reports END) AS ran_reports,
        sum(CASE WHEN workload = 'ai' THEN busy * size * reports END) AS ai_reports,
        sum(memory_used * reports) AS memory_used_reports,
        sum(CASE WHEN memory_used IS NOT NULL THEN memory_total * reports END) AS memory_total_reports,
        sum(CASE WHEN memory_total IS NOT NULL THEN memory_used * reports END) AS memory_told_reports
    FROM layout
    GROUP BY window_start, site, node, device
),
parents AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        site,
        node,
        device,
        max(model) AS model,
        avg(engine_active) AS busy,
        avg(power_watts) AS power_watts,
        sum(energy_joules_increase) AS energy_joules
    FROM accelerator
    WHERE slice IS NULL AND core IS NULL
    GROUP BY tumble(ts, INTERVAL '60 seconds'), site, node, device
),
sized AS (
    SELECT
        c.*,
        CASE WHEN contains(coalesce(p.model, c.model), 'A30') THEN 4.0 ELSE 7.0 END AS whole,
        p.busy AS device_busy,
        p.power_watts AS power_watts,
        p.energy_joules AS energy_joules
    FROM cut c
    LEFT JOIN parents p ON c.window_start = p.window_start AND c.site = p.site AND c.node = p.node AND c.device = p.device
)
SELECT
    window_start,
    region,
    site,
    node,
    device,
    instances,
    size_reports / instants AS slices_allocated,
    whole - size_reports / instants AS slices_free,
    busy_reports / instants / whole AS utilization_ratio,
    busy_reports / nullif(size_reports, 0.0) AS allocated_utilization_ratio,
    ran_reports / instants / whole AS ran_utilization_ratio,
    ai_reports / instants / whole AS ai_utilization_ratio,
    memory_used_reports / instants AS memory_used_bytes,
    memory_told_reports / nullif(memory_total_reports, 0.0) AS memory_used_ratio,
    device_busy AS device_engine_active_ratio,
    power_watts,
    energy_joules
FROM sized
