//! Tests of the order of the sources, and of what is said of mistakes.

use super::*;

fn flag(key: &str, text: &str) -> Flag {
    let flag = format!("--set {key}={text}");
    Flag { flag, key: key.to_owned(), value: Given::Text(text.to_owned()) }
}

fn sources(file: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    (folder, Sources { file: Some(path), ..Sources::default() })
}

fn origin(settings: &Settings, name: &str) -> String {
    let found = settings.shown().find(|(key, ..)| key.name == name).unwrap();
    format!("{} {}", found.1, found.2)
}

#[test]
fn a_flag_stands_above_a_variable_above_the_file_above_the_default() {
    let file = "[server]\nbody_bytes = 1\nstreams = 2\nrequest_secs = 3\n";
    let (_folder, mut sources) = sources(file);
    let path = sources.file.clone().unwrap();
    sources.variables =
        vec![("ADJUTANT_BODY_BYTES".into(), "10".into()), ("ADJUTANT_STREAMS".into(), "20".into())];
    sources.flags = vec![flag("server.body_bytes", "100")];
    let settings = Settings::load(&sources).unwrap();
    let cfg = &settings.config.server;
    assert_eq!((cfg.body_bytes, cfg.streams, cfg.request_time.as_secs()), (100, 20, 3));
    assert_eq!(origin(&settings, "server.body_bytes"), "100 --set server.body_bytes=100");
    assert_eq!(origin(&settings, "server.streams"), "20 ADJUTANT_STREAMS");
    assert_eq!(origin(&settings, "server.request_secs"), format!("3 {}", path.display()));
    assert_eq!(origin(&settings, "server.heartbeat_secs"), "15 default");
}

#[test]
fn every_mistake_is_told_at_once_with_the_nearest_name() {
    let file = "lone = 1\n[server]\nlisen = \"x\"\nbody_bytes = \"many\"\n[stor]\npath = \"x\"\n";
    let (_folder, mut sources) = sources(file);
    sources.flags = vec![flag("limits.sesions", "1"), flag("server.listen", "nowhere")];
    let Err(mistakes) = Settings::load(&sources) else { panic!("mistakes were overlooked") };
    let text = mistakes.to_string();
    for told in [
        "no setting lone",
        "no setting server.lisen; the nearest one is server.listen",
        "no setting stor.path; the nearest one is store.path",
        "no setting limits.sesions; the nearest one is limits.sessions",
        "server.body_bytes is to be a whole number",
        "server.listen (--set server.listen=nowhere): \"nowhere\"",
    ] {
        assert!(text.contains(told), "{told} is missing in:\n{text}");
    }
    assert_eq!(mistakes.0.len(), 6, "{text}");
}

#[test]
fn a_file_that_is_named_and_not_there_or_torn_is_a_mistake() {
    let named = Sources { file: Some("/nowhere/at-all.toml".into()), ..Sources::default() };
    assert!(Settings::load(&named).is_err());
    let (_folder, torn) = sources("[server\n");
    assert!(Settings::load(&torn).is_err());
}

#[test]
fn a_secret_is_hidden_in_every_form() {
    let (_folder, sources) = sources("[otlp]\nheaders = \"authorization=hush\"\n");
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.config.otlp_headers.as_deref(), Some("authorization=hush"));
    let all = settings.shown().map(|(_, value, _)| value.to_string()).collect::<String>();
    assert!(!(all + &settings.json().to_string()).contains("hush"));
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_noted() {
    let (_folder, mut sources) = sources("");
    sources.variables = vec![("ADJUTANT_LISEN".into(), "x".into())];
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(
        settings.notes,
        ["ADJUTANT_LISEN is no setting; the nearest one is ADJUTANT_LISTEN"]
    );
}
