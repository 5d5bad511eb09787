--- The independent judge: a convolutional classifier with two heads, style and subject, that no method optimises.
--- Another architecture than the reward (convolutions, not a transformer; classes, not text), another seed.
local core = require "syz.core"
local nn = require "syz.nn"

local M = {}

---@class syz.Judge
---@field styles string[]
---@field subjects string[]
local Judge = {}
Judge.__index = Judge

local WIDTHS = { 32, 64, 128, 256 }
local GROUPS = 8

local function build(styles, subjects, seed)
  local spec, from = {}, 3
  for level, width in ipairs(WIDTHS) do
    for layer = 1, level == #WIDTHS and 1 or 2 do
      local name = ("conv%d_%d"):format(level, layer)
      spec[#spec + 1] = { name .. ".weight", { width, from, 3, 3 }, "linear" }
      spec[#spec + 1] = { name .. ".norm.weight", { width }, "ones" }
      spec[#spec + 1] = { name .. ".norm.bias", { width }, "zeros" }
      from = width
    end
  end
  for head, classes in pairs { style = #styles, subject = #subjects } do
    spec[#spec + 1] = { head .. ".weight", { classes, from }, "linear" }
    spec[#spec + 1] = { head .. ".bias", { classes }, "zeros" }
  end
  table.sort(spec, function(a, b) return a[1] < b[1] end)
  return nn.module(spec, seed)
end

local function index_of(list)
  local map = {}
  for i, name in ipairs(list) do map[name] = i - 1 end
  return map
end

--- A fresh judge for these class names.
---@param styles string[]
---@param subjects string[]
---@param seed integer
---@return syz.Judge
function M.new(styles, subjects, seed)
  return setmetatable({
    styles = styles, subjects = subjects, module = build(styles, subjects, seed),
    style_index = index_of(styles), subject_index = index_of(subjects),
  }, Judge)
end

--- Load from a folder written by :save().
---@param folder string
---@return syz.Judge
function M.load(folder)
  local names = core.json.decode(core.file.read(folder .. "/config.json"))
  local self = M.new(names.styles, names.subjects, 0)
  self.module:restore(folder)
  return self
end

function Judge:save(folder)
  self.module:save(folder)
  core.file.write(folder .. "/config.json", core.json.encode({ styles = self.styles, subjects = self.subjects }, true))
end

--- Features [N,256] of images [N,H,W,3] in [0, 1].
function Judge:features(images)
  local x, store = images * 2 - 1, self.module.store
  for level = 1, #WIDTHS do
    for layer = 1, level == #WIDTHS and 1 or 2 do
      local name = ("conv%d_%d"):format(level, layer)
      x = x:conv2d(store[name .. ".weight"], nil, layer == 1 and 2 or 1, 1, 1, 1, 1)
      x = x:group_norm(store[name .. ".norm.weight"], store[name .. ".norm.bias"], GROUPS, 1e-5, true)
    end
  end
  return x:mean({ 1, 2 })
end

--- Logits {style = [N,styles], subject = [N,subjects]} and the features.
function Judge:logits(images)
  local store, features = self.module.store, self:features(images)
  return {
    style = features:linear(store["style.weight"], store["style.bias"]),
    subject = features:linear(store["subject.weight"], store["subject.bias"]),
  }, features
end

--- What an evaluation asks of images drawn for known subjects: mean probability of `style`, share whose subject is
--- recognised (top-1), and the mean pairwise distance of unit features (diversity).
---@param images syz.Tensor
---@param subjects string[]  the subject of each image's prompt
---@param style string
function Judge:assess(images, subjects, style)
  return core.no_grad(core.scope, function()
    local logits, features = self:logits(images)
    local n = #subjects
    local probability = logits.style:softmax(-1):totable()
    local top, hits, known, total = logits.subject:argmax(-1):totable(), 0, 0, 0
    local column = self.style_index[style] or error(("the judge knows no style %q"):format(style), 2)
    for i = 1, n do
      total = total + probability[(i - 1) * #self.styles + column + 1]
      local wanted = self.subject_index[subjects[i]]
      if wanted then
        known = known + 1
        if top[i] == wanted then hits = hits + 1 end
      end
    end
    local unit = features:normalize(1e-8)
    local mean = unit:mean({ 0 })
    local similarity = (mean * mean):sum():item()
    -- mean over i ~= j of |f_i - f_j|^2 = 2 (1 - mean_{i~=j} f_i f_j)
    local off_diagonal = (similarity * n * n - n) / math.max(1, n * (n - 1))
    return {
      style_probability = total / n, subject_accuracy = known > 0 and hits / known or 0,
      diversity = math.sqrt(math.max(0, 2 * (1 - off_diagonal))),
    }
  end)
end

return M
