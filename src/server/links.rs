//! Who is logged in as an operator, who holds which role, and how logins follow each other.
//!
//! A login is registered with the engine under its sid and under each of its roles, as all three
//! faces. A role has one holder; another login gets it only by taking over, which ends the first
//! one. A later login has a higher generation. What was opened with an operator's token ends with it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjutant_actors::model::token::TokenFingerprint;
use axum::extract::ws::WebSocket;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::server::leases::Leases;
use crate::server::link::faces::Faces;
use crate::server::link::frames::Kind;
use crate::server::link::{Counts, End, Link, LinkCfg, keeper, uuid};
use crate::server::problem::Problem;
use kept::Books;

mod kept;
mod standing;

/// What an operator's bearer begins with.
const PREFIX: &str = "opr-";

/// Random bytes in a bearer.
const RANDOM: usize = 32;

/// Logins that are no more and still known, at most; the oldest goes first.
const PAST_MAX: usize = 256;

/// Sids of earlier holders under which a login is reached as well, at most; the oldest goes first.
const ALIASES_MAX: usize = 64;

/// One login.
struct Login {
    link: Arc<Link>,
    hash: blake3::Hash,
    roles: Vec<String>,
    /// Sids of those that it took over from: what names them reaches it.
    aliases: Vec<String>,
    since: u64,
    /// The token that it was opened with, and ends with; none where the admin opened it.
    opener: Option<TokenFingerprint>,
    arrivals: mpsc::Sender<WebSocket>,
}

/// A login that is no more.
struct Past {
    sid: String,
    hash: blake3::Hash,
    roles: Vec<String>,
    link: Arc<Link>,
}

#[derive(Default)]
struct Table {
    generation: u64,
    logins: BTreeMap<String, Login>,
    holders: HashMap<String, String>,
    past: VecDeque<Past>,
}

/// All logins.
pub(crate) struct Links {
    cfg: LinkCfg,
    pub(crate) counts: Arc<Counts>,
    pub(crate) leases: Arc<Leases>,
    table: Mutex<Table>,
    books: Books,
}

/// What a login is told, once.
pub(crate) struct Welcome {
    pub(crate) sid: String,
    pub(crate) token: String,
    pub(crate) generation: u64,
}

/// Why there is no login.
#[derive(Debug)]
pub(crate) enum NoLogin {
    /// Who holds what was asked for.
    Held(Vec<Value>),
    /// The host itself registered this name.
    Reserved(String),
    Full(usize),
    Random,
    /// It could not be kept.
    Unkept(Problem),
}

/// Whose bearer it is, as seen from one sid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bearing {
    Holder,
    /// Somebody else's.
    Other,
    Unknown,
}

impl Links {
    pub(crate) fn new(cfg: LinkCfg) -> Self {
        let (counts, leases, table) = (Arc::default(), Arc::default(), Mutex::default());
        Self { cfg, counts, leases, table, books: Books::default() }
    }

    pub(crate) fn cfg(&self) -> &LinkCfg {
        &self.cfg
    }

    /// No change is left half done, so a holder's panic leaves the table usable.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs an operator in. Where others hold what it asks for, only if it takes over; these end,
    /// and what was asked of them is asked of it. Returns once it is kept, and nothing that they
    /// were given is of use any more.
    pub(crate) async fn log_in(
        self: &Arc<Self>,
        engine: &Engine,
        opener: Option<TokenFingerprint>,
        roles: Vec<String>,
        take_over: bool,
        since: u64,
    ) -> Result<Welcome, NoLogin> {
        let (token, hash) = bearer().map_err(|_| NoLogin::Random)?;
        let sid = format!("op-{}", uuid(engine.mint().bits128()));
        let (generation, older) = {
            let mut table = self.table();
            let mut held = table.holding(&roles);
            if !held.is_empty() && !take_over {
                return Err(NoLogin::Held(held.iter().map(|sid| table.shown(sid)).collect()));
            }
            let free =
                |role: &&String| !table.holders.contains_key(*role) && engine.is_seated(role);
            if let Some(role) = roles.iter().find(free) {
                return Err(NoLogin::Reserved(role.clone()));
            }
            if table.logins.len() >= self.cfg.logins + held.len() {
                return Err(NoLogin::Full(self.cfg.logins));
            }
            table.generation += 1;
            let generation = table.generation;
            let link = self.link(sid.clone(), generation);
            let mut older: Vec<_> = held.drain(..).filter_map(|sid| table.retire(&sid)).collect();
            let mut aliases = Vec::new();
            for login in &mut older {
                login.roles.retain(|role| !roles.contains(role));
                aliases.append(&mut login.aliases);
                aliases.push(login.link.sid.clone());
            }
            let excess = aliases.len().saturating_sub(ALIASES_MAX);
            let forgotten: Vec<_> = aliases.drain(..excess).collect();
            let lost = older.iter().flat_map(|login| &login.roles).chain(&forgotten);
            lost.for_each(|name| engine.unseat(name));
            let arrivals = self.seat(engine, &link, opener, &roles, &aliases);
            table.holders.extend(roles.iter().map(|role| (role.clone(), sid.clone())));
            let login = Login { link: link.clone(), hash, roles, aliases, since, opener, arrivals };
            table.logins.insert(sid.clone(), login);
            for login in &older {
                Counts::add(&self.counts.taken_over);
                login.link.end(End::TakenOver(link.clone()));
            }
            (generation, older)
        };
        let changed = older.iter().map(|login| &login.link.sid).chain([&sid]).cloned().collect();
        if let Err(problem) = self.book(changed).await {
            self.log_out(engine, &sid).await;
            return Err(NoLogin::Unkept(problem));
        }
        for login in older {
            login.link.taken_back().await;
        }
        Ok(Welcome { sid, token, generation })
    }

    fn link(&self, sid: String, generation: u64) -> Arc<Link> {
        Arc::new(Link::new(sid, generation, self.cfg.clone(), Arc::clone(&self.counts)))
    }

    /// Registers a link under all its names, and starts its task.
    fn seat(
        self: &Arc<Self>,
        engine: &Engine,
        link: &Arc<Link>,
        opener: Option<TokenFingerprint>,
        roles: &[String],
        aliases: &[String],
    ) -> mpsc::Sender<WebSocket> {
        let faces = Arc::new(Faces {
            link: link.clone(),
            leases: self.leases.clone(),
            engine: engine.unanchored(),
        });
        for name in roles.iter().chain(aliases).chain([&link.sid]) {
            engine.seat(name, &faces);
        }
        let (arrivals, coming) = mpsc::channel(1);
        let (links, link, engine) = (self.clone(), link.clone(), engine.unanchored());
        tokio::spawn(async move {
            let watched = keeper::watch(&link, &engine, opener);
            tokio::join!(keeper::keep(link.clone(), coming), watched);
            links.forget(&engine, &link.sid);
            // What ends with the server is taken up by the next one.
            if !matches!(link.ended(), Some(End::Stopped)) {
                links.book_end(&link.sid).await;
            }
        });
        arrivals
    }

    /// Takes an ended login off its names.
    fn forget(&self, engine: &Engine, sid: &str) {
        let mut table = self.table();
        let Some(login) = table.retire(sid) else { return };
        for name in login.roles.iter().chain(&login.aliases).chain([&login.link.sid]) {
            engine.unseat(name);
        }
    }

    /// Ends a login. Says whether it was there.
    pub(crate) async fn log_out(&self, engine: &Engine, sid: &str) -> bool {
        let link = self.table().logins.get(sid).map(|login| login.link.clone());
        let ended = link.is_some_and(|link| link.end(End::LoggedOut));
        self.forget(engine, sid);
        self.book_end(sid).await;
        ended
    }

    /// Whose a bearer is, as seen from a sid; none for a sid that is not known.
    pub(crate) fn bearing(&self, sid: &str, bearer: &str) -> Option<Bearing> {
        let (hash, table) = (blake3::hash(bearer.as_bytes()), self.table());
        let own = match table.logins.get(sid) {
            Some(login) => login.hash,
            None => table.past.iter().find(|past| past.sid == sid)?.hash,
        };
        if own == hash {
            return Some(Bearing::Holder);
        }
        let known = table.logins.values().any(|login| login.hash == hash);
        Some(if known { Bearing::Other } else { Bearing::Unknown })
    }

    /// A link that is there.
    #[cfg(feature = "mcp")]
    pub(crate) fn link_to(&self, sid: &str) -> Option<Arc<Link>> {
        let table = self.table();
        let login = table.logins.get(sid).filter(|login| login.link.ended().is_none())?;
        Some(login.link.clone())
    }

    /// The way of a socket to a link that is there.
    pub(crate) fn way_to(&self, sid: &str) -> Option<mpsc::Sender<WebSocket>> {
        let table = self.table();
        let login = table.logins.get(sid).filter(|login| login.link.ended().is_none())?;
        Some(login.arrivals.clone())
    }

    /// A login as it is shown; also one that is no more, for as long as it is known.
    pub(crate) fn show(&self, sid: &str) -> Option<Value> {
        let table = self.table();
        if table.logins.contains_key(sid) {
            return Some(table.shown(sid));
        }
        let past = table.past.iter().find(|past| past.sid == sid)?;
        let end = past.link.ended().unwrap_or(End::Stopped);
        let mut shown = json!({
            "sid": sid, "roles": past.roles, "generation": past.link.generation,
            "connected": false, "link": "torn_down", "reason": end.word(),
        });
        if let End::TakenOver(next) = end {
            shown["taken_over_by_generation"] = next.generation.into();
        }
        Some(shown)
    }

    /// Who is logged in, and holds what.
    pub(crate) fn list(&self) -> Vec<Value> {
        let table = self.table();
        table.logins.keys().map(|sid| table.shown(sid)).collect()
    }

    /// Tells every operator that nothing new comes.
    pub(crate) fn drain(&self, engine: &Engine) {
        for login in self.table().logins.values() {
            // One that keeps as much as it may learns it from the end.
            let _ = login.link.tell(Kind::Draining, engine.mint().bits128(), None, Map::new());
        }
    }

    /// Ends every link.
    pub(crate) fn stop(&self) {
        for login in self.table().logins.values() {
            login.link.end(End::Stopped);
        }
    }
}

/// A fresh bearer, with its hash.
fn bearer() -> Result<(String, blake3::Hash), getrandom::Error> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random)?;
    let token = format!("{PREFIX}{}", blake3::Hash::from_bytes(random).to_hex());
    let hash = blake3::hash(token.as_bytes());
    Ok((token, hash))
}

impl Table {
    /// The logins that hold any of these roles, each once.
    fn holding(&self, roles: &[String]) -> Vec<String> {
        let mut held: Vec<_> =
            roles.iter().filter_map(|role| self.holders.get(role).cloned()).collect();
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Takes a login out; it stays known for a while.
    fn retire(&mut self, sid: &str) -> Option<Login> {
        let login = self.logins.remove(sid)?;
        self.holders.retain(|_, holder| holder != sid);
        if self.past.len() >= PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(Past {
            sid: sid.to_owned(),
            hash: login.hash,
            roles: login.roles.clone(),
            link: login.link.clone(),
        });
        Some(login)
    }

    fn shown(&self, sid: &str) -> Value {
        let Some(login) = self.logins.get(sid) else { return Value::Null };
        let standing = login.link.standing();
        json!({
            "sid": sid,
            "roles": login.roles,
            "generation": login.link.generation,
            "since": login.since,
            "connected": standing.connected,
            "link": if standing.connected { "connected" } else { "away" },
            "parked": standing.parked,
            "unanswered": standing.unanswered,
            "kept": standing.kept,
        })
    }
}
