//! Behavior of the public engine: one binary, a module a theme, worlds from `world`.

mod cancel;
mod dispatching;
mod faulty;
mod sessions;
mod supervised;
mod supervision;
mod trees;
mod turns;
mod waiting;
mod world;
