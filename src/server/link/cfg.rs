//! The numbers of operators' links.

use std::time::Duration;

/// What may be said of the links of operators. Use the struct update syntax.
///
/// ```
/// use adjutant::server::LinkCfg;
/// use std::time::Duration;
///
/// let links = LinkCfg { away: Duration::from_secs(600), ..LinkCfg::default() };
/// assert!(links.ping < links.away);
/// ```
#[derive(Debug, Clone)]
pub struct LinkCfg {
    /// How often a connected operator is pinged, and how often it is looked at whether the token
    /// still stands that a login was opened with.
    pub ping: Duration,
    /// Pings in a row without any sign of life, after which a socket is given up.
    pub missed_pings: u32,
    /// Longest time without a socket, after which a link is torn down.
    pub away: Duration,
    /// Frames that one link keeps at a time, at most: those that wait for a socket and those that
    /// wait for their reply.
    pub kept_frames: usize,
    /// Bytes of these, at most.
    pub kept_bytes: usize,
    /// Longest frame, either way.
    pub frame_bytes: usize,
    /// Operators that are logged in at a time, at most.
    pub logins: usize,
}

impl Default for LinkCfg {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(30),
            missed_pings: 5,
            away: Duration::from_secs(3600),
            kept_frames: 1024,
            kept_bytes: 4 << 20,
            frame_bytes: 1 << 20,
            logins: 1024,
        }
    }
}
