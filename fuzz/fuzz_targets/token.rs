//! Gives libFuzzer's inputs to `token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::token::check(input));
