//! The line of dispatches that wait for a resume: in their order, and found by their task.
//!
//! It is bounded, and who left it makes room. It runs no turn and answers none. Nothing here takes
//! longer the more of them wait, but for taking them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::ids::TaskId;
use crate::turn::Turn;

/// Turns that each new one looks at, whether their callers left: with two, those who left are
/// never more than those who stay, or have come since.
const LOOKS: usize = 2;
/// Turns that it looks at where the line is full.
const LOOKS_FULL: usize = 64;

/// Turns that wait, oldest first.
#[derive(Default)]
pub(crate) struct Line {
    turns: BTreeMap<u64, (TaskId, Arc<dyn Turn>)>,
    by_task: BTreeSet<(TaskId, u64)>,
    /// Number of the next turn.
    next: u64,
    /// Where the next look begins.
    looked: u64,
}

impl Line {
    /// Lines a turn up. Gives it back where `limit` of them wait already.
    pub(crate) fn push(
        &mut self,
        task: TaskId,
        turn: Arc<dyn Turn>,
        limit: usize,
    ) -> Result<(), Arc<dyn Turn>> {
        self.tidy(if self.turns.len() < limit { LOOKS } else { LOOKS_FULL });
        if self.turns.len() >= limit {
            return Err(turn);
        }
        self.turns.insert(self.next, (task, turn));
        self.by_task.insert((task, self.next));
        self.next += 1;
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Takes the turns of one task out of the line, in their order.
    pub(crate) fn take_of(&mut self, task: TaskId) -> Vec<Arc<dyn Turn>> {
        let mut taken = Vec::new();
        while let Some(&(_, number)) = self.by_task.range((task, 0)..=(task, u64::MAX)).next() {
            taken.extend(self.remove(task, number));
        }
        taken
    }

    /// Takes all turns, in their order.
    pub(crate) fn take(&mut self) -> impl DoubleEndedIterator<Item = Arc<dyn Turn>> + use<> {
        std::mem::take(self).turns.into_values().map(|(_, turn)| turn)
    }

    fn remove(&mut self, task: TaskId, number: u64) -> Option<Arc<dyn Turn>> {
        self.by_task.remove(&(task, number));
        self.turns.remove(&number).map(|(_, turn)| turn)
    }

    /// Looks at some turns, after those that it looked at before, and forgets the ones that were left.
    fn tidy(&mut self, looks: usize) {
        for _ in 0..looks.min(self.turns.len()) {
            let next = self.turns.range(self.looked..).next();
            let Some((&number, (task, turn))) = next.or_else(|| self.turns.first_key_value())
            else {
                return;
            };
            self.looked = number + 1;
            if turn.is_abandoned() {
                let task = *task;
                self.remove(task, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{Caller, Step, TurnCell, TurnReply};

    type Follow = fn(&mut (), &mut crate::system::Links, &Arc<crate::system::Core>) -> Caller;

    /// A turn whose caller leaves when the second one is dropped.
    fn turn() -> (Arc<dyn Turn>, Box<dyn std::any::Any>) {
        let run = |_: &mut crate::state::EngineState| Step::Keep(());
        let cell = TurnCell::new("test", false, run, None::<Follow>);
        (cell.clone(), Box::new(TurnReply(cell)))
    }

    fn is_same(one: &Arc<dyn Turn>, other: &Arc<dyn Turn>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
    }

    #[test]
    fn a_task_takes_its_own_and_the_rest_go_in_their_order() {
        let (mut line, tasks) = (Line::default(), [1, 2, 1, 3].map(TaskId::from_bits));
        let (turns, _callers): (Vec<_>, Vec<_>) = tasks.map(|_| turn()).into_iter().unzip();
        for (task, turn) in tasks.into_iter().zip(&turns) {
            assert!(line.push(task, turn.clone(), 4).is_ok());
        }
        let refused = line.push(tasks[0], turns[0].clone(), 4).err().unwrap();
        assert!(is_same(&refused, &turns[0]));
        let own = line.take_of(tasks[0]);
        assert!(own.len() == 2 && is_same(&own[0], &turns[0]) && is_same(&own[1], &turns[2]));
        assert!(line.take_of(tasks[0]).is_empty());
        let rest: Vec<_> = line.take().collect();
        assert!(rest.len() == 2 && is_same(&rest[0], &turns[1]) && is_same(&rest[1], &turns[3]));
        assert!(line.is_empty() && line.by_task.is_empty());
    }

    #[test]
    fn who_left_makes_room_and_fills_no_more_than_who_stays() {
        let (mut line, task) = (Line::default(), TaskId::from_bits(1));
        let stay: Vec<_> = (0..10).map(|_| turn()).collect();
        for (turn, _) in &stay {
            assert!(line.push(task, turn.clone(), 100).is_ok());
        }
        for _ in 0..10_000 {
            let (turn, caller) = turn();
            drop(caller);
            assert!(line.push(task, turn, 100).is_ok());
            assert!(line.turns.len() <= 2 * stay.len() + LOOKS, "{} wait", line.turns.len());
        }
        let kept: Vec<_> = line.take_of(task);
        assert!(kept.iter().zip(&stay).all(|(kept, (turn, _))| is_same(kept, turn)));
    }
}
