//! `adjutant check`: every mistake of a blueprint at once.

use adjutant::blueprint::{Functions, Known, check_file, steps};
use serde_json::json;

use crate::cli::args::CheckArgs;
use crate::cli::{code, print_line, say};

pub(crate) fn main(args: &CheckArgs) -> anyhow::Result<i32> {
    let rust_fns = Functions::new().names().into_iter().map(str::to_owned).collect();
    let known = Known { rust_fns, ..Known::default() };
    match check_file(&args.blueprint, &known) {
        Ok((blueprint, warnings)) => {
            let (agents, steps) = (blueprint.agents.len(), steps(&blueprint.flow).len());
            let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            if args.json {
                return print_line(
                    &json!({ "ok": true, "agents": agents, "steps": steps, "warnings": warnings })
                        .to_string(),
                );
            }
            for warning in &warnings {
                say(&format!("warning: {warning}"));
            }
            let id = &blueprint.id;
            print_line(&format!("{id}: {agents} agents, {steps} steps, no mistakes found"))
        }
        Err(errors) => {
            if args.json {
                let errors: Vec<_> = errors.errors().iter().map(ToString::to_string).collect();
                print_line(&json!({ "ok": false, "errors": errors }).to_string())?;
            } else {
                say(&format!("{}:\n{errors}", args.blueprint.display()));
            }
            Ok(code::USAGE)
        }
    }
}
