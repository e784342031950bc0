//! Logins that outlive the server: what is on the shelf of them, and how the next server knows them
//! again. Only hashes of bearers are kept.
//!
//! A row follows the table: it is written, or taken away, by what the table says at that moment,
//! one after the other. What ends with the server stays on the shelf.

use std::collections::HashSet;
use std::sync::Arc;

use adjutant_actors::model::token::TokenFingerprint;
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::server::links::{Links, Login};
use crate::server::on_shelf;
use crate::server::problem::Problem;
use crate::server::shelf::{KeptLogin, Shelf};

/// Where logins are kept, and the turn of who writes there.
#[derive(Default)]
pub(super) struct Books {
    shelf: std::sync::OnceLock<Arc<dyn Shelf>>,
    turn: Mutex<()>,
}

impl Login {
    fn kept(&self) -> KeptLogin {
        KeptLogin {
            sid: self.link.sid.clone(),
            bearer: self.hash.to_hex().to_string(),
            roles: self.roles.clone(),
            aliases: self.aliases.clone(),
            generation: self.link.generation,
            since: self.since,
            opener: self.opener.map(|opener| opener.to_string()),
        }
    }
}

impl Links {
    /// Brings the shelf in line with what the table says of these logins, in one step.
    pub(super) async fn book(&self, sids: Vec<String>) -> Result<(), Problem> {
        let Some(shelf) = self.books.shelf.get() else { return Ok(()) };
        let _turn = self.books.turn.lock().await;
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        {
            let table = self.table();
            for sid in sids {
                match table.logins.get(&sid) {
                    Some(login) => kept.push(login.kept()),
                    None => gone.push(sid),
                }
            }
        }
        on_shelf(shelf, move |shelf| shelf.keep_logins(&kept, &gone)).await
    }

    /// Takes the end of a login to the shelf. A shelf that fails has ended the engine.
    pub(super) async fn book_end(&self, sid: &str) {
        if let Err(problem) = self.book(vec![sid.to_owned()]).await {
            tracing::warn!(code = problem.code(), "the end of a login was not kept");
        }
    }

    /// Takes up the logins of the server before, each with its sid, its bearer, its names and a
    /// higher generation, as if it had just lost its socket. From here on logins are kept.
    pub(crate) async fn take_up(
        self: &Arc<Self>,
        engine: &Engine,
        shelf: &Arc<dyn Shelf>,
    ) -> Result<usize, Problem> {
        let (mut kept, newest) = on_shelf(shelf, |shelf| shelf.logins()).await?;
        self.table().generation = newest;
        // The newest first: of two that hold one role, a take-over was cut short between them.
        kept.sort_unstable_by_key(|login| std::cmp::Reverse(login.generation));
        let sids: Vec<_> = kept.iter().map(|login| login.sid.clone()).collect();
        let (mut held, mut stays) = (HashSet::new(), Vec::new());
        for login in kept {
            let names = login.roles.iter().chain(&login.aliases);
            let free = names.clone().all(|name| !held.contains(name) && !engine.is_seated(name));
            if free && stays.len() < self.cfg.logins && login.is_whole() {
                held.extend(names.cloned());
                stays.push(login);
            } else {
                tracing::warn!(roles = ?login.roles, "a login is not taken up again");
            }
        }
        let _ = self.books.shelf.set(shelf.clone());
        let known = stays.len();
        for login in stays.into_iter().rev() {
            self.seat_again(engine, login);
        }
        // The generations too, so that they rise from server to server.
        self.book(sids).await?;
        Ok(known)
    }

    fn seat_again(self: &Arc<Self>, engine: &Engine, login: KeptLogin) {
        let (Some(hash), Ok(opener)) = (login.bearer_hash(), login.opened_with()) else { return };
        let mut table = self.table();
        table.generation += 1;
        let link = self.link(login.sid.clone(), table.generation);
        let arrivals = self.seat(engine, &link, opener, &login.roles, &login.aliases);
        let KeptLogin { sid, roles, aliases, since, .. } = login;
        table.holders.extend(roles.iter().map(|role| (role.clone(), sid.clone())));
        let login = Login { link, hash, roles, aliases, since, opener, arrivals };
        table.logins.insert(sid, login);
    }
}

impl KeptLogin {
    fn bearer_hash(&self) -> Option<blake3::Hash> {
        blake3::Hash::from_hex(&self.bearer).ok()
    }

    fn opened_with(&self) -> serde_json::Result<Option<TokenFingerprint>> {
        self.opener.as_deref().map(|text| serde_json::from_value(text.into())).transpose()
    }

    fn is_whole(&self) -> bool {
        self.bearer_hash().is_some() && self.opened_with().is_ok()
    }
}
