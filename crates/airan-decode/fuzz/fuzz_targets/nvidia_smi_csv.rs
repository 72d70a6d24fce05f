#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| airan_decode_fuzz::run_printed(body, airan_decode::accelerators::smi_csv::read));
