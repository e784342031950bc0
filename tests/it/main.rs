//! Behavior of the public engine: one binary, a module a theme, worlds from `world`.

mod dispatching;
mod world;
