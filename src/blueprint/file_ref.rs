//! File references: `{"$file": path}` anywhere, `{"$agent_md": path}` in the list of agents.
//!
//! References are relative to the document's folder and never leave it: no absolute path, no
//! `..`, no link that points outside. What they bring in is text and is not searched again. A
//! document without a folder, such as one that came over a wire, may not refer to files at all.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::agent_md;
use super::error::CompileError;

/// How large one referenced file may be.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How much all referenced files may bring in together.
pub(crate) const TOTAL_BYTES_MAX: u64 = 8 * 1024 * 1024;

const FILE: &str = "$file";
const AGENT_MD: &str = "$agent_md";

/// Replaces every file reference of a document by what it refers to.
///
/// A reference that cannot be used becomes `null` and a fault.
pub(crate) fn resolve(document: &mut Value, folder: Option<&Path>) -> Vec<CompileError> {
    let mut refs = Refs { folder, left: TOTAL_BYTES_MAX, faults: Vec::new() };
    if let Some(Value::Array(agents)) = document.get_mut("agents") {
        for (index, agent) in agents.iter_mut().enumerate() {
            refs.agent(&format!("/agents/{index}"), agent);
        }
    }
    refs.value("", document);
    refs.faults
}

struct Refs<'a> {
    folder: Option<&'a Path>,
    left: u64,
    faults: Vec<CompileError>,
}

impl Refs<'_> {
    fn agent(&mut self, place: &str, agent: &mut Value) {
        if agent.get(AGENT_MD).is_none() {
            return;
        }
        let text = self.text(place, AGENT_MD, agent);
        *agent = match text {
            None => Value::Null,
            Some((path, text)) => agent_md::to_agent(&text).unwrap_or_else(|msg| {
                self.fault(place, &path, msg);
                Value::Null
            }),
        };
    }

    fn value(&mut self, place: &str, value: &mut Value) {
        match value {
            Value::Object(fields) if fields.contains_key(FILE) => {
                let text = self.text(place, FILE, value);
                *value = text.map_or(Value::Null, |(_, text)| Value::String(text));
            }
            Value::Object(fields) if fields.contains_key(AGENT_MD) => {
                self.fault(place, AGENT_MD, "stands only in the list of agents");
                *value = Value::Null;
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.value(&format!("{place}/{key}"), value);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(&format!("{place}/{index}"), item);
                }
            }
            _ => {}
        }
    }

    /// The path that a reference names, and the text of the file there.
    fn text(&mut self, place: &str, key: &str, reference: &Value) -> Option<(String, String)> {
        let alone = reference.as_object().is_some_and(|fields| fields.len() == 1);
        let Some(path) = reference.get(key).and_then(Value::as_str).filter(|_| alone) else {
            self.fault(place, key, "must be the only key and hold a path");
            return None;
        };
        match self.read(path) {
            Ok(text) => Some((path.to_owned(), text)),
            Err(msg) => {
                self.fault(place, path, msg);
                None
            }
        }
    }

    fn read(&mut self, path: &str) -> Result<String, String> {
        let folder = self.folder.ok_or("this document may not refer to files")?;
        let file = inside(folder, path)?;
        let cap = FILE_BYTES_MAX.min(self.left);
        let text = read_capped(&file, cap)?;
        self.left -= text.len() as u64;
        Ok(text)
    }

    fn fault(&mut self, place: &str, path: &str, msg: impl Into<String>) {
        let (place, path, msg) = (place.to_owned(), path.to_owned(), msg.into());
        self.faults.push(CompileError::FileRef { place, path, msg });
    }
}

/// The real path of a reference, which lies in the real folder or is refused.
fn inside(folder: &Path, path: &str) -> Result<PathBuf, String> {
    let relative = Path::new(path);
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !relative.components().all(plain) {
        return Err("must be a relative path without `..`".into());
    }
    let said = |error: std::io::Error| error.to_string();
    let folder = fs::canonicalize(folder).map_err(said)?;
    let file = fs::canonicalize(folder.join(relative)).map_err(said)?;
    if file.starts_with(&folder) { Ok(file) } else { Err("leads out of the folder".into()) }
}

/// Reads a regular file of at most `cap` bytes as UTF-8 text.
pub(crate) fn read_capped(path: &Path, cap: u64) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    // Asked before opening, because opening a pipe waits for its other end.
    if !fs::metadata(path).map_err(said)?.is_file() {
        return Err("is not a regular file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(said)?;
    file.take(cap + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > cap {
        return Err(format!("holds more than the {cap} bytes allowed"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn world() -> tempfile::TempDir {
        let world = tempfile::tempdir().unwrap();
        fs::create_dir_all(world.path().join("doc/sub")).unwrap();
        fs::write(world.path().join("doc/sub/a.sh"), "echo {\"$file\": 1}\n").unwrap();
        fs::write(world.path().join("doc/a.md"), "---\nname: m\n---\nBody").unwrap();
        fs::write(world.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(world.path().join("secret"), world.path().join("doc/link"))
            .unwrap();
        world
    }

    fn reason(path: &str) -> String {
        let world = world();
        let mut document = json!({"x": {"$file": path}});
        let faults = resolve(&mut document, Some(&world.path().join("doc")));
        assert_eq!((faults.len(), &document["x"]), (1, &Value::Null));
        faults[0].to_string()
    }

    #[test]
    fn references_are_replaced_by_what_they_name() {
        let world = world();
        let mut document =
            json!({"agents": [{"$agent_md": "a.md"}, {"x": [{"$file": "./sub/a.sh"}]}]});
        assert_eq!(resolve(&mut document, Some(&world.path().join("doc"))), []);
        assert_eq!(document["agents"][0]["profile"]["system_prompt"], "Body");
        assert_eq!(document["agents"][1]["x"][0], "echo {\"$file\": 1}\n");
    }

    #[test]
    fn a_reference_never_leaves_the_folder() {
        assert!(reason("../secret").contains("without `..`"));
        assert!(reason("sub/../../secret").contains("without `..`"));
        assert!(reason("/etc/passwd").contains("relative path"));
        assert!(reason("link").contains("leads out of the folder"));
        assert!(reason("").contains("relative path"));
    }

    #[test]
    fn what_is_not_a_text_file_is_refused() {
        assert!(reason("sub").contains("not a regular file"));
        assert!(reason("missing").contains("No such file"));
    }

    #[test]
    fn a_document_without_a_folder_may_not_refer_to_files() {
        let mut document = json!({"x": {"$file": "a"}, "agents": [{"$agent_md": "a"}]});
        assert_eq!(resolve(&mut document, None).len(), 2);
    }

    #[test]
    fn a_file_over_the_cap_is_refused() {
        let world = world();
        let file = world.path().join("secret");
        assert!(read_capped(&file, 0).unwrap_err().contains("more than the 0 bytes"));
        assert_eq!(read_capped(&file, 1).unwrap(), "s");
    }

    #[test]
    fn a_reference_with_company_is_a_fault() {
        let world = world();
        let mut document = json!({"x": {"$file": "a", "y": 1}, "flow": {"$agent_md": "a.md"}});
        assert_eq!(resolve(&mut document, Some(world.path())).len(), 2);
    }
}
