-- Tokenizers as rewards and pipelines open them: bundled vocabularies, the frames of each kind, cuts that are said.
local core = require "syz.core"
local texts = require "syz.texts"
local progress = require "syz.progress"

describe("texts", function()
  local notes, note
  before_each(function()
    notes, note = {}, progress.note
    progress.note = function(text) notes[#notes + 1] = text end
  end)
  after_each(function() progress.note = note end)

  it("bundles CLIP's and BERT's vocabularies", function()
    local clip = texts.open(texts.bundled "clip", 49408, "the tower")
    assert.same({ 320, 1125, 539, 320, 2368 }, clip:encode "a photo of a cat")
    assert.equal(2, clip.frame)
    local bert = texts.open(texts.bundled "bert", 30524, "the tower")
    assert.same({ 1037, 6302, 1997, 1037, 4937, 30523 }, bert:encode "a photo of a cat[ENC]")
    assert.same({ bos = 101, eos = 102, pad = 0, unk = 100 }, bert:specials())
    assert.has_error(function() texts.bundled "t5" end, 'there is no bundled vocabulary "t5": clip, bert')
    assert.has_error(function() texts.bundled "../../syz" end, 'there is no bundled vocabulary "../../syz": clip, bert')
  end)

  it("reads CLIP's text as open_clip does where that is asked for", function()
    local folder = texts.bundled "clip"
    local plain = texts.open(folder, 49408, "the tower")
    local cleaned = texts.open(folder, 49408, "the tower", "open_clip")
    assert.same(plain:encode "cats & dogs", cleaned:encode "cats &amp; dogs")
    assert.not_same(plain:encode "cats & dogs", plain:encode "cats &amp; dogs")
    assert.has_error(function() core.tokenizer(texts.bundled "bert", "open_clip") end)
  end)

  it("says of each kind how many tokens are left out", function()
    local clip = texts.open(texts.bundled "clip", 49408, "the tower")
    clip:batch({ "a photo of a cat" }, 7)
    assert.same({}, notes)
    clip:batch({ "a photo of a cat" }, 6)
    assert.truthy(notes[1]:find("a text has 5 tokens and the tower reads 4;", 1, true))
    local t5 = texts.open("tests/text/data/t5_tiny", 32128, "the encoder")
    assert.equal(1, t5.frame)
    t5:batch({ "a b a" }, 7)
    assert.equal(1, #notes)
    local ids = t5:batch({ "a b a" }, 3)
    assert.equal(1, ids:totable()[3])
    assert.truthy(notes[2]:find("tokens and the encoder reads 2;", 1, true))
  end)

  it("refuses a tokenizer with more ids than the tower knows", function()
    local ok, reason = pcall(texts.open, texts.bundled "bert", 30522, "the tower")
    assert.is_false(ok)
    assert.truthy(reason:find("the tokenizer has ids up to 30523, the tower knows 30522 (vocab_size)", 1, true))
  end)
end)
