//! Spans that are sent to a collector: OTLP over HTTP, behind the feature `otlp`.
//!
//! The requests go over the program's own HTTP connection code, so no second client comes in.
//! Without the feature a configured collector is an error, not a silence.

use tracing_subscriber::{Layer, Registry};

use crate::cli::settings::Config;

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

#[cfg(not(feature = "otlp"))]
pub(crate) use without::{Sending, begin};

#[cfg(feature = "otlp")]
pub(crate) use otlp::{Sending, begin};

#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
mod without {
    use super::{Boxed, Config};

    /// Nothing is sent.
    pub(crate) struct Sending;

    impl Sending {
        pub(crate) async fn end(self) {}
    }

    pub(crate) fn begin(config: &Config) -> anyhow::Result<(Option<Boxed>, Sending)> {
        if config.otlp_endpoint.is_some() {
            anyhow::bail!(
                "otlp.endpoint is set, and this program was built without the feature `otlp`, so it \
                 sends no spans"
            );
        }
        Ok((None, Sending))
    }
}
