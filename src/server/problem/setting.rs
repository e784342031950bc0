//! The settings that a refusal may name: each bound or list that its reader can change.
//!
//! A name is a key of `docs/settings.md`, so what a client is told to raise is there to be raised.

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident = $key:literal,)+) => {
        /// A setting that stands in the way.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Setting {
            $($(#[$doc])* $name,)+
        }

        impl Setting {
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its key.
            pub(crate) const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)+ }
            }
        }
    };
}

settings! {
    /// Programs that documents from outside may run.
    Programs = "programs.allow",
    /// Runs that are carried on at a time.
    LiveRuns = "limits.live_runs",
    /// Life of a session that is attached over HTTP.
    SessionTime = "limits.session_secs",
    /// Dispatches that wait for their agent.
    WaitingDispatches = "limits.waiting_dispatches",
    /// Bytes that dispatches keep.
    DispatchBytes = "limits.dispatch_bytes",
    /// Bytes of the data plane.
    DataBytes = "data.bytes",
    /// Bodies of the data plane.
    DataRecords = "data.records",
}

impl Setting {
    /// What to do with it.
    pub(super) fn advice(self) -> String {
        match self {
            Self::Programs => {
                format!("name the program in the setting `{}` (--program)", self.key())
            }
            _ => format!("raise the setting `{}`", self.key()),
        }
    }
}
