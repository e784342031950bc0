//! Behavior of the public engine: one binary, a module a theme, worlds from `world`.

mod cancel;
mod dispatching;
mod faulty;
mod supervised;
mod supervision;
mod trees;
mod waiting;
mod world;
