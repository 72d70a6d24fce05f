-- Deadlines of the fronthaul in windows of 60 s: one row per cell, RU or network card, as the source reports them.
--
-- packets      uplink user plane, by the O-DU's reception window (O-RAN.WG4.CUS): received = early + on time + late. A source
--              that does not count early packets has none; one without the other two has no ratios
-- late         late / (early + on time + late), of the window's sums
-- budget used  misses / allowed misses = (early + late) / ((1 - objective) * received). The objective is that 0.9998 of the
--              packets come within their window (Aerial, 4TR early HARQ), so 0.0002 may miss it, early or late; another objective
--              is set here. 1 uses up just what is allowed, 2 twice as much: the burn rate of the SRE Workbook, chapter 5
-- missed symbols, PRACH occasions  those of which nothing came in time
-- late slots   downlink slots that layer 1 brought too late to be sent; requests for uplink slots that came too late
WITH sums AS (
    SELECT
        tumble(ts, INTERVAL '60 seconds') AS window_start,
        region,
        site,
        node,
        cell,
        ru,
        nic,
        sum(rx_early_packets_increase) AS early_packets,
        sum(rx_on_time_packets_increase) AS on_time_packets,
        sum(rx_late_packets_increase) AS late_packets,
        max(rx_latest_seconds) AS latest_packet_seconds,
        sum(missed_ul_symbols_increase) AS missed_ul_symbols,
        sum(missed_prach_occasions_increase) AS missed_prach_occasions,
        sum(late_dl_slots_increase) AS late_dl_slots,
        sum(late_ul_slot_requests_increase) AS late_ul_slot_requests
    FROM fronthaul
    GROUP BY tumble(ts, INTERVAL '60 seconds'), region, site, node, cell, ru, nic
),
packets AS (
    SELECT
        *,
        coalesce(early_packets, 0.0) + late_packets AS misses,
        coalesce(early_packets, 0.0) + on_time_packets + late_packets AS received_packets
    FROM sums
)
SELECT
    window_start,
    region,
    site,
    node,
    cell,
    ru,
    nic,
    received_packets,
    early_packets,
    late_packets,
    CAST(late_packets AS DOUBLE) / nullif(received_packets, 0.0) AS late_ratio,
    misses / nullif((1.0 - 0.9998) * received_packets, 0.0) AS budget_used_ratio,
    latest_packet_seconds,
    missed_ul_symbols,
    missed_prach_occasions,
    late_dl_slots,
    late_ul_slot_requests
FROM packets
