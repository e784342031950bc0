//! Settings of the engines that are measured.

use adjutant::{EngineCfg, HoldPolicy};

/// Settings under which a loaded machine stops no bench: holds are counted only.
pub(crate) fn calm() -> EngineCfg {
    EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() }
}
