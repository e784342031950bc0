//! Gives libFuzzer's inputs to `names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::names::check(input));
