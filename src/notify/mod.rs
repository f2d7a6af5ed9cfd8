//! Messages to the channels of the configuration: how each channel wants to be spoken to (`render`, pure), and the way
//! there (`deliver`).

pub mod address;
pub mod deliver;
mod escape;
mod render;
mod sign;
mod slack;
mod statuspage;
mod webhook;

pub use render::{Facts, Notice, Request, Step, render};

#[cfg(test)]
mod tests;
