#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| airan_decode_fuzz::run(|context| airan_decode::remote_write::decode(
    body,
    airan_decode::RemoteWrite::V2,
    context
)));
