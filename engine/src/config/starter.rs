//! The providers and reply rules that come with the engine, as text of a settings file.

/// What `tuning/rules/large-providers.toml` holds: tables `[provider]` and `[[rule]]`.
#[must_use]
pub fn starter() -> &'static str {
    include_str!("../../../tuning/rules/large-providers.toml")
}
