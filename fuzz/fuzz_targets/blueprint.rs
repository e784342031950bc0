//! Gives libFuzzer's inputs to `blueprint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::blueprint::check(input));
