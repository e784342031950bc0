//! A batch as bytes: one checked frame, for any backend that keeps batches whole.
//!
//! Numbers are little-endian. A frame is: magic and version, the head (number, epoch, seconds,
//! milliseconds, last event, flags), the count and the images (table, version or 0 for a removal,
//! key, image), the count and the events (number, seconds, JSON), and the first 16 bytes of the
//! BLAKE3 hash of all of that. Texts and blobs have their length before them.

use crate::journal::Batch;
use crate::state::effect::Now;
use crate::state::images::{IMAGE_VERSION, Key, Mark, TableName};

const MAGIC: [u8; 4] = *b"adjB";
const VERSION: u8 = 1;
const SUM_LEN: usize = 16;
const PAUSED: u8 = 1;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// They end too early, or a length in them is wrong.
    #[error("the frame is cut short")]
    Short,
    /// They are not what was written.
    #[error("the frame's checksum does not match")]
    Checksum,
    /// A later version wrote them.
    #[error("the frame has version {0}")]
    Version(u8),
    /// They are well kept and mean nothing.
    #[error("the frame holds something unknown")]
    Unknown,
}

/// Appends the frame of a batch to `out`. `keep` says which images it holds, so that a backend may
/// store some apart.
///
/// ```
/// use adjutant_actors::journal::{Batch, frame};
/// use adjutant_actors::state::images::Touched;
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// let batch = Batch::cut(&state, &mut Touched::default(), &[], 7, 1, now);
/// let mut bytes = Vec::new();
/// frame::write(&batch, |_key| true, &mut bytes)?;
/// assert_eq!(frame::read(&bytes).map(|view| view.number).ok(), Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// That of the JSON writer, which no value that passed the engine's door meets.
pub fn write(
    batch: &Batch,
    keep: impl Fn(&Key) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    for number in [batch.number, batch.epoch, batch.at.unix, batch.at.ms, batch.mark.last_seq] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(if batch.mark.paused { PAUSED } else { 0 });
    let images = batch.images.iter().filter(|image| keep(image.key()));
    counted(out, |out| {
        let mut count = 0;
        for image in images {
            out.push(image.key().table().wire());
            out.push(if image.is_removal() { 0 } else { IMAGE_VERSION });
            blob(out, |out| {
                out.extend_from_slice(image.key().text().as_bytes());
                Ok(())
            })?;
            blob(out, |out| image.encode(out))?;
            count += 1;
        }
        Ok(count)
    })?;
    counted(out, |out| {
        for record in &batch.events {
            out.extend_from_slice(&record.seq.to_le_bytes());
            out.extend_from_slice(&record.at.to_le_bytes());
            blob(out, |out| serde_json::to_writer(out, &record.event))?;
        }
        Ok(batch.events.len() as u32)
    })?;
    let sum = blake3::hash(&out[start..]);
    out.extend_from_slice(&sum.as_bytes()[..SUM_LEN]);
    Ok(())
}

/// Writes what `body` writes, with the number that it gives before it.
fn counted(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<u32, serde_json::Error>,
) -> Result<(), serde_json::Error> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let count = body(out)?;
    out[at..at + 4].copy_from_slice(&count.to_le_bytes());
    Ok(())
}

/// Writes what `body` writes, with its length before it.
fn blob(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    counted(out, |out| {
        let start = out.len();
        body(out)?;
        u32::try_from(out.len() - start)
            .map_err(|_| serde::ser::Error::custom("a record of 4 GiB or more"))
    })
}

/// A batch read from its frame, borrowing from it.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchView<'a> {
    /// Its number.
    pub number: u64,
    /// Its epoch.
    pub epoch: u64,
    /// When it was cut.
    pub at: Now,
    /// Counters after it.
    pub mark: Mark,
    /// Its images.
    pub images: Vec<ImageView<'a>>,
    /// Its events.
    pub events: Vec<EventView<'a>>,
}

/// An image in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageView<'a> {
    /// Its table.
    pub table: TableName,
    /// Its key as text.
    pub key: &'a str,
    /// Version and JSON; `None` where the record is gone.
    pub image: Option<(u8, &'a [u8])>,
}

/// An event in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventView<'a> {
    /// Its number.
    pub seq: u64,
    /// Unix seconds.
    pub at: u64,
    /// The event's JSON.
    pub json: &'a [u8],
}

struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (head, rest) = self.left.split_at_checked(len).ok_or(FrameError::Short)?;
        self.left = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        self.take(1)?.first().copied().ok_or(FrameError::Short)
    }

    fn long(&mut self) -> Result<u64, FrameError> {
        let bytes = self.take(8)?.try_into().map_err(|_| FrameError::Short)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn count(&mut self) -> Result<usize, FrameError> {
        let bytes = self.take(4)?.try_into().map_err(|_| FrameError::Short)?;
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| FrameError::Short)
    }

    fn blob(&mut self) -> Result<&'a [u8], FrameError> {
        let len = self.count()?;
        self.take(len)
    }
}

/// Reads a frame that is the whole of `bytes`.
///
/// ```
/// use adjutant_actors::journal::frame::{BatchView, EventView, FrameError, ImageView, read};
///
/// match read(b"no frame at all") {
///     Ok(BatchView { images, events, .. }) => {
///         let gone = images.iter().filter(|ImageView { image, .. }| image.is_none()).count();
///         let last = events.last().map(|EventView { seq, .. }| *seq);
///         panic!("{gone} records are gone, {last:?} is the last event");
///     }
///     Err(FrameError::Version(version)) => panic!("a later program, of version {version}"),
///     Err(FrameError::Short | FrameError::Checksum | FrameError::Unknown) => {}
/// }
/// ```
///
/// # Errors
/// [`FrameError`]; bytes that were changed anywhere are refused.
pub fn read(bytes: &[u8]) -> Result<BatchView<'_>, FrameError> {
    let body = bytes.len().checked_sub(SUM_LEN).ok_or(FrameError::Short)?;
    let (body, sum) = bytes.split_at(body);
    if blake3::hash(body).as_bytes()[..SUM_LEN] != *sum {
        return Err(FrameError::Checksum);
    }
    let mut from = Reader { left: body };
    if from.take(4)? != MAGIC {
        return Err(FrameError::Unknown);
    }
    match from.byte()? {
        VERSION => {}
        other => return Err(FrameError::Version(other)),
    }
    let (number, epoch) = (from.long()?, from.long()?);
    let at = Now { unix: from.long()?, ms: from.long()? };
    let mark = Mark { last_seq: from.long()?, paused: from.byte()? & PAUSED != 0 };
    let mut images = Vec::new();
    for _ in 0..from.count()? {
        let table = TableName::from_wire(from.byte()?).ok_or(FrameError::Unknown)?;
        let version = from.byte()?;
        let key = std::str::from_utf8(from.blob()?).map_err(|_| FrameError::Unknown)?;
        let image = from.blob()?;
        images.push(ImageView { table, key, image: (version > 0).then_some((version, image)) });
    }
    let mut events = Vec::new();
    for _ in 0..from.count()? {
        events.push(EventView { seq: from.long()?, at: from.long()?, json: from.blob()? });
    }
    if from.left.is_empty() {
        Ok(BatchView { number, epoch, at, mark, images, events })
    } else {
        Err(FrameError::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::event::{Event, EventRecord};

    fn frame() -> Vec<u8> {
        let event = Event::DispatchPaused;
        let batch = Batch {
            number: 7,
            epoch: 2,
            at: Now { unix: 100, ms: 5 },
            mark: Mark { last_seq: 9, paused: true },
            images: Vec::new(),
            events: vec![Arc::new(EventRecord { seq: 9, at: 100, event })],
        };
        let mut out = Vec::new();
        write(&batch, |_| true, &mut out).unwrap();
        out
    }

    #[test]
    fn a_frame_reads_back_what_was_written() {
        let bytes = frame();
        let view = read(&bytes).unwrap();
        assert_eq!((view.number, view.epoch, view.at), (7, 2, Now { unix: 100, ms: 5 }));
        assert_eq!(view.mark, Mark { last_seq: 9, paused: true });
        assert_eq!(view.events[0].json, br#"{"kind":"dispatch_paused"}"#);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let bytes = frame();
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "cut at {len}");
        }
        for at in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[at / 8] ^= 1 << (at % 8);
            assert!(read(&bent).is_err(), "bit {at}");
        }
    }
}
