//! Gives libFuzzer's inputs to `events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::events::check(input));
