//! Gives libFuzzer's inputs to `streams`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::streams::check(input));
