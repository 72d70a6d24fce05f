#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| airan_decode_fuzz::run(|context| airan_decode::otlp::decode_logs_json(body, context)));
