//! What asking a link gives: a request that waits for its reply, or why there is none.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::server::link::{End, Link, Told};

/// Why a link took no frame.
#[derive(Debug)]
pub(crate) enum Refused {
    /// To be said to the login that took over.
    Moved(Arc<Link>),
    No(String),
}

/// A request that waits for its reply.
pub(crate) struct Asked {
    pub(super) link: Arc<Link>,
    pub(super) seq: u64,
    pub(super) wait: oneshot::Receiver<Told>,
}

impl Asked {
    /// Waits for what comes of it. There is no deadline here: the run has one.
    ///
    /// # Errors
    /// Why no reply comes.
    pub(crate) async fn told(mut self) -> Result<Told, String> {
        let told = (&mut self.wait).await;
        told.map_err(|_| self.link.gone(&self.link.ended().unwrap_or(End::Stopped)))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.withdraw(self.seq);
    }
}
