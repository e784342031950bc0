//! Blueprints: whatever the text, the faults are told; what has none compiles and comes back.

use std::sync::OnceLock;

use adjutant::blueprint::{Functions, check_text, compile, known_to, parse_blueprint, steps};
use adjutant::{Engine, EngineCfg};
use tokio::runtime::{Builder, Runtime};

fn desk() -> &'static (Runtime, Engine) {
    static DESK: OnceLock<(Runtime, Engine)> = OnceLock::new();
    DESK.get_or_init(|| {
        let runtime = Builder::new_current_thread().build().expect("a runtime can be built");
        (runtime, Engine::new(EngineCfg::default()))
    })
}

/// Reads, checks and compiles a document that may refer to no file.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (runtime, engine) = desk();
    let functions = Functions::new();
    let known = runtime.block_on(known_to(engine, &functions));
    let read = check_text(text, None, &known);
    let Ok((blueprint, _)) = read else {
        return;
    };
    let written = serde_json::to_string(&blueprint).expect("a checked document can be written");
    assert_eq!(parse_blueprint(&written, None).as_ref(), Ok(&blueprint), "{written}");
    let _ = steps(&blueprint.flow);
    let program = runtime.block_on(compile(engine, &blueprint, &functions));
    let program = program.expect("what the check lets pass compiles");
    assert_eq!(program.name(), blueprint.id);
    assert_eq!(program.agent_names().len(), blueprint.agents.len());
}
