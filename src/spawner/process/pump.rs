//! The pumps: one feeds stdin, one reads stdout into events or bytes, one keeps the end of
//! stderr. They run side by side, so that no pipe fills up while another is waited for. They
//! start and end no process; a pump that cannot go on asks for the end by a token.

use std::time::Duration;

use adjutant_actors::model::output::OutputEvent;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::parse::StreamParser;
use super::run::ChildFault;
use super::spec::{ChildLimits, ChildSpec};

/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// What the pumps hear and say.
#[derive(Debug)]
pub(super) struct Signals {
    /// The child has ended: pipes that stay silent from now on are given up.
    pub(super) exited: CancellationToken,
    /// A pump wants the child to end.
    pub(super) halt: CancellationToken,
    /// How long silence is borne after the end.
    pub(super) linger: Duration,
}

impl Signals {
    pub(super) fn new(linger: Duration) -> Self {
        Self { exited: CancellationToken::new(), halt: CancellationToken::new(), linger }
    }

    /// The next bytes of a pipe; 0 at its end, at an error, or when nothing comes after the
    /// child's end.
    async fn read(&self, pipe: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> usize {
        let given_up = async {
            self.exited.cancelled().await;
            sleep(self.linger).await;
        };
        tokio::select! {
            biased;
            read = pipe.read(into) => read.unwrap_or_default(),
            () = given_up => 0,
        }
    }
}

/// Writes the prompt and closes the pipe. A child is free not to read it.
pub(super) async fn feed(mut pipe: ChildStdin, input: Option<Vec<u8>>, signals: &Signals) {
    let Some(input) = input else { return };
    let written = async {
        if let Err(error) = pipe.write_all(&input).await {
            tracing::debug!(error = error.to_string(), "a child did not read all of its input");
        }
    };
    tokio::select! {
        () = written => {}
        () = signals.exited.cancelled() => {}
    }
}

/// The reader of stdout and what it has found.
#[derive(Debug)]
pub(super) struct Output {
    parser: Option<StreamParser>,
    sink: mpsc::Sender<OutputEvent>,
    room: u64,
    limit: u64,
    pub(super) plain: Vec<u8>,
    pub(super) final_ok: Option<bool>,
    pub(super) fault: Option<ChildFault>,
}

impl Output {
    pub(super) fn new(
        spec: &ChildSpec,
        limits: &ChildLimits,
        sink: mpsc::Sender<OutputEvent>,
    ) -> Self {
        Self {
            parser: spec.mode.map(|mode| StreamParser::new(mode, limits.longest)),
            sink,
            room: limits.stdout_bytes,
            limit: limits.stdout_bytes,
            plain: Vec::new(),
            final_ok: None,
            fault: None,
        }
    }

    pub(super) fn skipped(&self) -> u64 {
        self.parser.as_ref().map_or(0, StreamParser::skipped)
    }

    /// Reads to the end, or to a fault, upon which it asks for the child's end.
    pub(super) async fn pump(&mut self, mut pipe: ChildStdout, signals: &Signals) {
        let mut chunk = vec![0; CHUNK];
        let done = loop {
            match signals.read(&mut pipe, &mut chunk).await {
                0 => break self.finish().await,
                read => {
                    if let Err(fault) = self.take(&chunk[..read]).await {
                        break Err(fault);
                    }
                }
            }
        };
        if let Err(fault) = done {
            self.fault = Some(fault);
            signals.halt.cancel();
        }
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), ChildFault> {
        let allowed = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
        let within = &bytes[..allowed];
        self.room -= allowed as u64;
        match &mut self.parser {
            None => self.plain.extend_from_slice(within),
            Some(parser) => {
                let mut events = Vec::new();
                let read = parser.push(within, &mut events);
                self.submit(events).await?;
                read.map_err(ChildFault::Stream)?;
            }
        }
        if allowed < bytes.len() {
            return Err(ChildFault::StdoutTooLong { limit: self.limit });
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ChildFault> {
        let Some(parser) = &mut self.parser else { return Ok(()) };
        let mut events = Vec::new();
        let read = parser.finish(&mut events);
        self.submit(events).await?;
        read.map_err(ChildFault::Stream)
    }

    /// Waits while the sink is full: a flood stays in the pipe and holds the child up.
    async fn submit(&mut self, events: Vec<OutputEvent>) -> Result<(), ChildFault> {
        for event in events {
            let ok = if let OutputEvent::Final { ok, .. } = &event { Some(*ok) } else { None };
            self.sink.send(event).await.map_err(|_| ChildFault::SinkClosed)?;
            self.final_ok = ok.or(self.final_ok);
        }
        Ok(())
    }
}

/// The end of what was written, up to a length.
#[derive(Debug)]
pub(super) struct Tail {
    kept: Vec<u8>,
    most: usize,
}

impl Tail {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most }
    }

    pub(super) async fn pump(&mut self, mut pipe: ChildStderr, signals: &Signals) {
        let mut chunk = vec![0; CHUNK];
        loop {
            match signals.read(&mut pipe, &mut chunk).await {
                0 => return,
                read => self.push(&chunk[..read]),
            }
        }
    }

    /// Lets twice the length gather before it moves bytes, so that each byte moves once.
    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(&bytes[bytes.len().saturating_sub(self.most)..]);
        if self.kept.len() >= self.most.saturating_mul(2) {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.kept.drain(..self.kept.len().saturating_sub(self.most));
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.trim();
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_end_of_what_was_written_in_any_pieces() {
        let all: Vec<u8> = (0..=255).collect();
        for most in [0, 1, 7, 300] {
            for piece in [1, 3, 100, 256] {
                let mut tail = Tail::new(most);
                all.chunks(piece).for_each(|bytes| tail.push(bytes));
                let expected = &all[all.len().saturating_sub(most)..];
                assert_eq!(tail.into_bytes(), expected, "{most} {piece}");
            }
        }
    }
}
