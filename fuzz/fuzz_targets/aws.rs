#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ip_address_controller::foreign::aws(data));
