//! Gives libFuzzer's inputs to `http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::http::check(input));
