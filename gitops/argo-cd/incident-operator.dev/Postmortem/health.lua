-- Health of a Postmortem. It follows kstatus: what counts is the generation that was observed, and conditions.
local health = {status = "Progressing", message = "the operator has not looked at this generation yet"}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
for _, bad in ipairs({"Stalled", "Overdue"}) do
  if conditions[bad] ~= nil and conditions[bad].status == "True" then
    health.status = "Degraded"
    health.message = conditions[bad].message
    return health
  end
end
local reviewed = conditions["Reviewed"]
if reviewed == nil then
  return health
end
if reviewed.status ~= "True" then
  -- It waits for people, and nothing is wrong with that.
  health.status = "Suspended"
  health.message = reviewed.message
  return health
end
health.status = "Healthy"
health.message = reviewed.message
local items = conditions["ActionItemsDone"]
if items ~= nil and items.status ~= "True" then
  health.message = health.message .. "; " .. items.message
end
return health
