-- Load of each cell in windows of 60 s.
--
-- PRB utilisation  mean of the reported shares; else PRBs used / PRBs there are, of their means (TS 28.552 5.1.1.2.1 downlink,
--                  5.1.1.2.2 uplink, there in percent: RRU.PrbTotDl, RRU.PrbTotUl)
-- saturated        share of the reports of PRB utilisation at or above 0.85; null where the source reports PRBs alone. The
--                  threshold is a choice of this query, no standard's
-- throughput       mean of the reported throughput of the MAC; else rise of transport-block bytes / time between the rows it
--                  spans, retransmissions included
-- users            UEs in RRC connected: mean and most of the reports (TS 28.552 5.1.1.4.1 and 5.1.1.4.2: RRC.ConnMean, ConnMax)
SELECT
    tumble(ts, INTERVAL '60 seconds') AS window_start,
    region,
    site,
    node,
    gnb,
    cell,
    coalesce(
        avg(dl_prb_utilization),
        avg(dl_prbs_used) / nullif(avg(dl_prbs_available), 0.0)) AS dl_prb_utilization_ratio,
    coalesce(
        avg(ul_prb_utilization),
        avg(ul_prbs_used) / nullif(avg(ul_prbs_available), 0.0)) AS ul_prb_utilization_ratio,
    avg(CASE WHEN dl_prb_utilization >= 0.85 THEN 1.0 WHEN dl_prb_utilization IS NOT NULL THEN 0.0 END) AS dl_saturated_ratio,
    avg(CASE WHEN ul_prb_utilization >= 0.85 THEN 1.0 WHEN ul_prb_utilization IS NOT NULL THEN 0.0 END) AS ul_saturated_ratio,
    coalesce(
        avg(dl_bytes_per_second),
        sum(dl_bytes_increase) / nullif(sum(dl_bytes_increase_seconds), 0.0)) AS dl_bytes_per_second,
    coalesce(
        avg(ul_bytes_per_second),
        sum(ul_bytes_increase) / nullif(sum(ul_bytes_increase_seconds), 0.0)) AS ul_bytes_per_second,
    avg(connected_ues) AS connected_ues_avg,
    max(connected_ues) AS connected_ues_max
FROM cell
GROUP BY tumble(ts, INTERVAL '60 seconds'), region, site, node, gnb, cell
