//! Gives libFuzzer's inputs to `journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| adjutant_fuzz::journal::check(input));
