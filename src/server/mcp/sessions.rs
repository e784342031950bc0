//! The sessions of the protocol's older revisions, each for who opened it: to everybody else it is
//! as if there were none of that id.
//!
//! The library asks its manager of sessions by id alone, in the task that serves the request, so who
//! asks is said by that task. What is asked outside of any request is the server's own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::common::server_side_http::ServerSseMessage;
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError,
};
use rmcp::transport::streamable_http_server::session::{SessionId, SessionManager};

tokio::task_local! {
    /// Whose request is served.
    static ASKING: String;
}

/// The open sessions, and who opened which.
#[derive(Default)]
pub(crate) struct Sessions {
    inner: LocalSessionManager,
    openers: Mutex<HashMap<SessionId, String>>,
}

impl Sessions {
    /// Sessions that end after a time without a request.
    pub(crate) fn new(idle: Duration) -> Self {
        let mut sessions = Self::default();
        sessions.inner.session_config.keep_alive = Some(idle);
        sessions
    }

    /// Serves a request in somebody's name.
    pub(crate) async fn serve<T>(&self, who: String, served: impl Future<Output = T>) -> T {
        ASKING.scope(who, served).await
    }

    /// How many are open.
    pub(crate) async fn open(&self) -> usize {
        self.inner.sessions.read().await.len()
    }

    /// Whether this session is open, and was opened by that caller.
    pub(crate) fn is_of(&self, id: &str, who: &str) -> bool {
        self.openers().get(id).is_some_and(|opener| opener == who)
    }

    /// A map is whole between any two of its changes, so a holder's panic leaves it usable.
    fn openers(&self) -> MutexGuard<'_, HashMap<SessionId, String>> {
        self.openers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets through the opener, and what no request asks for.
    fn check(&self, id: &SessionId) -> Result<(), LocalSessionManagerError> {
        match ASKING.try_with(|who| self.is_of(id, who)) {
            Ok(true) | Err(_) => Ok(()),
            Ok(false) => Err(LocalSessionManagerError::SessionNotFound(id.clone())),
        }
    }
}

type Sent<T> = Result<T, LocalSessionManagerError>;

impl SessionManager for Sessions {
    type Error = LocalSessionManagerError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Sent<(SessionId, Self::Transport)> {
        let (id, transport) = self.inner.create_session().await?;
        if let Ok(who) = ASKING.try_with(String::clone) {
            self.openers().insert(id.clone(), who);
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Sent<ServerJsonRpcMessage> {
        self.check(id)?;
        self.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Sent<bool> {
        match self.check(id) {
            Ok(()) => self.inner.has_session(id).await,
            Err(_) => Ok(false),
        }
    }

    /// Also what the library calls when a session ended by itself, by its time or its worker's end.
    async fn close_session(&self, id: &SessionId) -> Sent<()> {
        self.check(id)?;
        self.openers().remove(id);
        self.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Sent<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.check(id)?;
        self.inner.create_stream(id, message).await
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Sent<()> {
        self.check(id)?;
        self.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Sent<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.check(id)?;
        self.inner.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Sent<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.check(id)?;
        self.inner.resume(id, last_event_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_there_for_its_opener_alone_and_goes_with_its_book_entry() {
        let sessions = Sessions::default();
        let created = sessions.serve("ann".to_owned(), sessions.create_session()).await;
        let (id, transport) = created.unwrap();
        let has = async |who: &str| {
            sessions.serve(who.to_owned(), sessions.has_session(&id)).await.unwrap()
        };
        assert!(has("ann").await && !has("eve").await);
        let close = sessions.serve("eve".to_owned(), sessions.close_session(&id)).await;
        assert!(close.is_err() && has("ann").await);
        // As its worker does when it ends.
        drop(transport);
        sessions.close_session(&id).await.unwrap();
        assert!(!has("ann").await && sessions.openers().is_empty());
        assert_eq!(sessions.open().await, 0);
    }
}
