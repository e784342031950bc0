//! `adjutant config`: every setting with its value and where it came from.

use serde_json::json;

use crate::cli::args::{ConfigArgs, ConfigCommand, LogArgs, SettingsArgs};
use crate::cli::settings::keys::{Config, keys};
use crate::cli::settings::value::Value;
use crate::cli::settings::{Flag, Given, Settings, Sources};
use crate::cli::{code, print_line, say, usage};

/// What a command's own flags say of settings, as far as they were given.
#[derive(Default)]
pub(crate) struct Flags(Vec<Flag>);

impl Flags {
    fn add(&mut self, key: &str, flag: &str, value: Given) {
        self.0.push(Flag { flag: flag.to_owned(), key: key.to_owned(), value });
    }

    pub(crate) fn text(mut self, key: &str, flag: &str, text: Option<&str>) -> Self {
        if let Some(text) = text {
            self.add(key, flag, Given::Text(text.to_owned()));
        }
        self
    }

    pub(crate) fn number(mut self, key: &str, flag: &str, number: Option<u64>) -> Self {
        if let Some(number) = number {
            self.add(key, flag, Given::Value(Value::Number(number)));
        }
        self
    }

    pub(crate) fn list(mut self, key: &str, flag: &str, list: &[String]) -> Self {
        if !list.is_empty() {
            self.add(key, flag, Given::Value(Value::List(list.to_vec())));
        }
        self
    }

    /// The flags of the log, which every command has.
    pub(crate) fn log(self, args: &LogArgs) -> Self {
        let format = args.log.map(|format| format.word());
        self.text("log.level", "--log-level", args.log_level.as_deref()).text(
            "log.format",
            "--log",
            format,
        )
    }
}

/// The sources of settings, with what a command's own flags say.
pub(crate) fn sources(args: &SettingsArgs, Flags(mut flags): Flags) -> Sources {
    flags.extend(args.set.iter().map(|set| {
        let (key, text) = set.split_once('=').unwrap_or((set, ""));
        let value = Given::Text(text.to_owned());
        Flag { flag: format!("--set {key}"), key: key.to_owned(), value }
    }));
    Sources { flags, variables: std::env::vars_os().collect(), file: args.config.clone() }
}

pub(crate) fn main(args: &ConfigArgs) -> anyhow::Result<i32> {
    match &args.command {
        ConfigCommand::Show { settings, json } => show(settings, *json),
        ConfigCommand::Keys => print_line(page().trim_end()),
    }
}

fn show(args: &SettingsArgs, json: bool) -> anyhow::Result<i32> {
    let settings = match Settings::load(&sources(args, Flags::default())) {
        Ok(settings) => settings,
        Err(mistakes) => return Ok(usage(&mistakes.to_string())),
    };
    settings.notes.iter().for_each(|note| say(&format!("adjutant: {note}")));
    if json {
        return print_line(&json!({ "settings": settings.json() }).to_string());
    }
    let mut section = "";
    for (key, value, origin) in settings.shown() {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            print_line(&format!("{}[{of}]", if section.is_empty() { "" } else { "\n" }))?;
            section = of;
        }
        // A file of settings again, where what is not set is left out.
        let line = match value {
            Value::Absent => format!("# {name} is not set"),
            value => format!("{name} = {value}"),
        };
        print_line(&format!("{line:<44} # {origin}"))?;
    }
    Ok(code::PASS)
}

/// The page of all settings, which is `docs/settings.md`.
fn page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         A flag stands above a variable, a variable above the file, the file above the default. The file is TOML:\n\
         `--config FILE`, `ADJUTANT_CONFIG`, else `adjutant/config.toml` in `$XDG_CONFIG_HOME` (`~/.config`). Each key can be\n\
         given as `--set KEY=VALUE` too. A key that is not known is an error. `adjutant config show` prints all values and\n\
         where they came from. Times are in whole seconds.\n\n\
         This page is written by `adjutant config keys > docs/settings.md`.\n\n\
         | key | variable | default | meaning |\n|---|---|---|---|\n",
    );
    let config = Config::default();
    for key in keys() {
        let default = match (key.get)(&config) {
            Value::Absent => String::new(),
            value => format!("`{value}`"),
        };
        let (name, variable, help) = (key.name, key.variable(), key.help);
        page.push_str(&format!("| `{name}` | `{variable}` | {default} | {help} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_settings_is_as_the_program_writes_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let hint = "write it anew: cargo run -- config keys > docs/settings.md";
        assert!(kept == page(), "docs/settings.md differs; {hint}");
    }
}
