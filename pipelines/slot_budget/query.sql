-- How each cell keeps the deadline of its slots: windows of 5 min, one beginning each minute.
--
-- slot          1 ms / 2^mu (TS 38.211 4.3.2), with the numerology that the cell reports; null where it reports none
-- budget used   time the scheduler took for a slot / length of the slot: mean (sum / number of observations), and what 99 % of the
--               slots stayed below; 1 uses all of it. Of the histograms of all slots in the window merged bucket by bucket
-- late slots    as counted by the source; else the observations above the slot's length, exactly where that is a bound of the histogram,
--               and with all of its last bucket where the length is beyond the highest bound
-- slots         observations; else downlink and uplink slots as counted
-- misses used   late / ((1 - objective) * slots), the objective being that 0.9998 of the slots are in time (Aerial, 4TR early HARQ,
--               99.98 %): 1 uses up just what is allowed, above it is the burn rate of the SRE Workbook, chapter 5, over 5 min
-- misses left   1 - misses used, not below 0
--
-- A cell that tells neither latencies nor late slots has no row.
WITH counted AS (
    SELECT
        hop(ts, INTERVAL '60 seconds', INTERVAL '300 seconds') AS window_start,
        region,
        site,
        node,
        gnb,
        cell,
        0.001 / power(2.0, max(numerology)) AS slot_seconds,
        histogram_merge(slot_latency_seconds_increase) AS latency,
        max(slot_latency_max_seconds) AS latency_max_seconds,
        sum(late_slots_increase) AS late_slots,
        sum(dl_slots_increase) + sum(ul_slots_increase) AS counted_slots
    FROM cell
    GROUP BY hop(ts, INTERVAL '60 seconds', INTERVAL '300 seconds'), region, site, node, gnb, cell
),
budgets AS (
    SELECT
        *,
        coalesce(CAST(histogram_count(latency) AS DOUBLE), counted_slots) AS slots,
        histogram_sum(latency) / nullif(CAST(histogram_count(latency) AS DOUBLE), 0.0) AS latency_avg_seconds,
        histogram_quantile(0.99, latency) AS latency_p99_seconds,
        coalesce(late_slots, histogram_above(slot_seconds, latency)) AS misses
    FROM counted
    WHERE latency IS NOT NULL OR late_slots IS NOT NULL
)
SELECT
    window_start,
    region,
    site,
    node,
    gnb,
    cell,
    slot_seconds,
    slots,
    latency_avg_seconds,
    latency_p99_seconds,
    latency_max_seconds,
    latency_avg_seconds / slot_seconds AS budget_used_avg_ratio,
    latency_p99_seconds / slot_seconds AS budget_used_p99_ratio,
    misses AS late_slots,
    misses / nullif((1.0 - 0.9998) * slots, 0.0) AS misses_used_ratio,
    CASE WHEN misses >= (1.0 - 0.9998) * slots THEN 0.0
        ELSE 1.0 - misses / nullif((1.0 - 0.9998) * slots, 0.0) END AS misses_left_ratio
FROM budgets
