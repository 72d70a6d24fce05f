-- Latency of each model on each server and engine in windows of 60 s.
--
-- Quantiles are taken once, of the histograms of all requests in the window merged bucket by bucket; a mean of percentiles
-- would be no percentile. Inside a bucket they are interpolated linearly, as Prometheus' histogram_quantile does.
-- TTFT is time to first token, TPOT time per output token (vLLM's request_time_per_output_token, else inter-token latency).
-- tokens a second = rise / time between the rows that it spans. Engines are rows of their own, so that their times do not add up.
SELECT
    tumble(ts, INTERVAL '60 seconds') AS window_start,
    region,
    site,
    node,
    server,
    model,
    engine,
    histogram_quantile(0.50, histogram_merge(time_to_first_token_seconds_increase)) AS ttft_p50_seconds,
    histogram_quantile(0.95, histogram_merge(time_to_first_token_seconds_increase)) AS ttft_p95_seconds,
    histogram_quantile(0.99, histogram_merge(time_to_first_token_seconds_increase)) AS ttft_p99_seconds,
    coalesce(
        histogram_quantile(0.50, histogram_merge(time_per_output_token_seconds_increase)),
        histogram_quantile(0.50, histogram_merge(inter_token_latency_seconds_increase))) AS tpot_p50_seconds,
    coalesce(
        histogram_quantile(0.95, histogram_merge(time_per_output_token_seconds_increase)),
        histogram_quantile(0.95, histogram_merge(inter_token_latency_seconds_increase))) AS tpot_p95_seconds,
    coalesce(
        histogram_quantile(0.99, histogram_merge(time_per_output_token_seconds_increase)),
        histogram_quantile(0.99, histogram_merge(inter_token_latency_seconds_increase))) AS tpot_p99_seconds,
    histogram_quantile(0.50, histogram_merge(queue_time_seconds_increase)) AS queue_p50_seconds,
    histogram_quantile(0.95, histogram_merge(queue_time_seconds_increase)) AS queue_p95_seconds,
    histogram_quantile(0.99, histogram_merge(queue_time_seconds_increase)) AS queue_p99_seconds,
    histogram_count(histogram_merge(time_to_first_token_seconds_increase)) AS first_tokens,
    sum(generation_tokens_increase) AS generation_tokens,
    sum(generation_tokens_increase) / nullif(sum(generation_tokens_increase_seconds), 0.0) AS generation_tokens_per_second,
    sum(prompt_tokens_increase) / nullif(sum(prompt_tokens_increase_seconds), 0.0) AS prompt_tokens_per_second,
    avg(requests_running) AS requests_running,
    max(requests_waiting) AS requests_waiting_max,
    max(kv_cache_usage_ratio) AS kv_cache_usage_max_ratio
FROM inference
GROUP BY tumble(ts, INTERVAL '60 seconds'), region, site, node, server, model, engine
