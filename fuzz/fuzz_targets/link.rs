//! Gives libFuzzer's inputs to `link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::link::check(input));
