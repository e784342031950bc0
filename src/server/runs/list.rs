//! Lists of runs: the newest first, by filters, in pages.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::RunId;
use adjutant_actors::state::runs::{RunRecord, RunStatus};

use crate::server::problem::Problem;
use crate::server::runs::{RunView, Runs, Standing};

/// Looks that one page takes at most: what no run fits is told before it takes long.
const LOOKS: usize = 16;

/// Runs that one look fetches at least.
const FETCHED: usize = 64;

/// Which runs are wanted. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFilter {
    pub(crate) status: Option<Vec<Standing>>,
    /// The document's id.
    pub(crate) blueprint: Option<String>,
    /// An agent that a step of it was given to.
    pub(crate) agent: Option<String>,
    pub(crate) since: Option<u64>,
    pub(crate) until: Option<u64>,
    pub(crate) limit: usize,
    /// Where the page before ended.
    pub(crate) after: Option<(u64, RunId)>,
}

impl RunFilter {
    /// What the record alone tells.
    fn fits(&self, run: &RunRecord) -> bool {
        let started = run.started_at.saturating_mul(1000);
        let status = self.status.as_ref().is_none_or(|wanted| match Standing::of_end(run.status) {
            Some(ended) => wanted.contains(&ended),
            None => wanted.iter().any(|wanted| !wanted.is_over()),
        });
        status
            && self.blueprint.as_ref().is_none_or(|id| **id == *run.name)
            && self.since.is_none_or(|since| started >= since)
            && self.until.is_none_or(|until| started < until)
    }
}

impl Runs {
    /// A page of runs, the newest first, without their reports and tasks; and where the next page
    /// begins, if there may be one. Where few runs fit, a page may be short or empty and go on.
    pub(crate) async fn list(
        &self,
        filter: RunFilter,
    ) -> Result<(Vec<RunView>, Option<(u64, RunId)>), Problem> {
        let limit = filter.limit.max(1);
        let (mut shown, mut after) = (Vec::new(), filter.after);
        for _ in 0..LOOKS {
            let wanted = filter.clone();
            let look = move |state: &mut adjutant_actors::state::EngineState| {
                state.runs_page(after, limit.max(FETCHED), |_, run| wanted.fits(run))
            };
            let page = self.engine.with_state("list_runs", look).await?;
            let mut found = page.found.into_iter().peekable();
            while let Some((id, record)) = found.next() {
                let mark = (record.started_at, id);
                if let Some(view) = self.wanted(id, &record, &filter).await? {
                    shown.push(view);
                }
                if shown.len() >= limit {
                    let next = if found.peek().is_some() { Some(mark) } else { page.next };
                    return Ok((shown, next));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok((shown, after))
    }

    /// A run as a list shows it, where what its record alone does not tell fits too.
    async fn wanted(
        &self,
        id: RunId,
        record: &RunRecord,
        filter: &RunFilter,
    ) -> Result<Option<RunView>, Problem> {
        let status = self.standing(id, record).await?;
        let fits = filter.status.as_ref().is_none_or(|wanted| wanted.contains(&status));
        let fits = fits && self.has_agent(id, filter).await?;
        Ok(fits.then(|| RunView::of(id, record, status)))
    }

    async fn has_agent(&self, id: RunId, filter: &RunFilter) -> Result<bool, EngineError> {
        match &filter.agent {
            Some(agent) => self.engine.run_has_agent(id, agent).await,
            None => Ok(true),
        }
    }
}

/// Reads a word for where a run stands; `open` stands for all that have not ended.
pub(crate) fn standings(text: &str) -> Result<Vec<Standing>, EngineError> {
    let mut all = Vec::new();
    for word in text.split(',') {
        if word == RunStatus::Open.as_str() {
            let open =
                [Standing::Running, Standing::Waiting, Standing::Left, Standing::Interrupted];
            all.extend(open);
            continue;
        }
        let word = serde_json::Value::from(word);
        all.push(
            serde_json::from_value(word)
                .map_err(|error| EngineError::InvalidArgument(format!("status: {error}")))?,
        );
    }
    Ok(all)
}
