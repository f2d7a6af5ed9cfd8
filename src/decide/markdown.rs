//! placeholder until merged
/// r
pub fn render(p: &crate::api::Postmortem) -> String {
    format!("# {}\n", p.spec.title.clone().unwrap_or_default())
}
