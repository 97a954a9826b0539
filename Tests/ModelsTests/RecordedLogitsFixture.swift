/// What transformers 5.17.0 computes for tiny models with generated weights, in float32: keys of the configuration besides the common ones, the
/// first four logits of the last of eight positions, and the likeliest token there.
let recordedLogits: [(keys: String, logits: [Float], argmax: Int)] = [
  (
    """
    "model_type":"llama","num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000.0,
    "max_position_embeddings":64,"tie_word_embeddings":false,"rope_scaling":{"rope_type":"llama3","factor":4.0,
    "low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":16}
    """,
    [-0.6523254, -0.7765908, 0.5164347, 0.4596963], 17
  ),
  (
    """
    "model_type":"mistral","num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-05,"rope_theta":10000.0,
    "sliding_window":3,"tie_word_embeddings":false
    """,
    [-0.4835677, 0.0738189, 1.0704874, -0.0516963], 59
  ),
  (
    """
    "model_type":"qwen2","num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":1000000.0,
    "max_position_embeddings":64,"tie_word_embeddings":true,"rope_scaling":{"type":"yarn","factor":4.0,
    "original_max_position_embeddings":16}
    """,
    [0.5517636, -0.0077797, 0.6541757, 1.5567408], 3
  ),
  (
    """
    "model_type":"qwen3","num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":1000000.0,
    "use_sliding_window":true,"sliding_window":3,"max_window_layers":1,"tie_word_embeddings":false
    """,
    [-0.1209184, 0.0444033, -0.2951120, -1.5398746], 54
  ),
  (
    """
    "model_type":"qwen3_moe","num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":1000000.0,
    "moe_intermediate_size":24,"num_experts":4,"num_experts_per_tok":2,"norm_topk_prob":true,"mlp_only_layers":[0],
    "tie_word_embeddings":false
    """,
    [-0.8592511, 0.2241123, -0.3893536, -1.3550593], 59
  ),
  (
    """
    "model_type":"mixtral","num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":1000000.0,
    "num_local_experts":4,"num_experts_per_tok":2,"tie_word_embeddings":false
    """,
    [-0.0550718, 0.0037673, 0.5107992, -0.2802014], 17
  ),
  (
    """
    "model_type":"gemma","num_key_value_heads":1,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":10000.0,
    "pad_token_id":0
    """,
    [-0.2702143, -2.0079150, -3.7424545, 0.6364489], 48
  ),
  (
    """
    "model_type":"gemma2","num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":10000.0,
    "sliding_window":3,"query_pre_attn_scalar":24,"attn_logit_softcapping":5.0,"final_logit_softcapping":3.0,
    "pad_token_id":0
    """,
    [-1.0253872, -0.6241321, 0.2693469, 0.7876302], 32
  ),
  (
    """
    "model_type":"gemma3_text","num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":1000000.0,
    "rope_local_base_freq":10000.0,"rope_scaling":{"rope_type":"linear","factor":8.0},"sliding_window":3,
    "sliding_window_pattern":2,"query_pre_attn_scalar":16,"pad_token_id":0
    """,
    [-1.0508026, 0.1648195, 1.8975438, 0.3586346], 16
  ),
  (
    """
    "model_type":"phi3","num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000.0,
    "max_position_embeddings":16,"original_max_position_embeddings":4,"tie_word_embeddings":false,"pad_token_id":0,
    "bos_token_id":1,"eos_token_id":2,"rope_scaling":{"type":"longrope","short_factor":[1.0,1.1,1.2,1.3],
    "long_factor":[1.0,1.5,2.0,4.0]}
    """,
    [-0.6023960, -0.9727007, -0.9355839, 0.1647060], 19
  ),
  (
    """
    "model_type":"gpt2","n_embd":32,"n_layer":2,"n_head":4,"n_positions":20,"bos_token_id":1,"eos_token_id":1
    """,
    [0.1298285, 1.1022409, 1.7833399, 1.2672781], 2
  ),
  (
    """
    "model_type":"gpt_neox","rotary_pct":0.5,"rotary_emb_base":10000,"use_parallel_residual":true,
    "tie_word_embeddings":false
    """,
    [0.0117526, 2.4761710, 0.7095561, -1.7883584], 1
  ),
  (
    """
    "model_type":"gpt_neox","rotary_pct":0.5,"rotary_emb_base":10000,"use_parallel_residual":false,
    "tie_word_embeddings":false
    """,
    [0.7663757, 1.8807763, 0.2856145, -1.0001326], 36
  ),
  (
    """
    "model_type":"opt","ffn_dim":48,"max_position_embeddings":20,"word_embed_proj_dim":32,
    "do_layer_norm_before":true,"activation_function":"relu"
    """,
    [0.0130607, 0.8003821, -0.9873747, -1.1179510], 6
  ),
  (
    """
    "model_type":"olmo2","num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":500000.0,
    "tie_word_embeddings":false,"pad_token_id":1
    """,
    [-0.4603040, -0.6515117, 0.7854906, 1.1901492], 17
  ),
  (
    """
    "model_type":"smollm3","num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":5000000.0,"no_rope_layers":[1,
    0],"tie_word_embeddings":true,"pad_token_id":0,"bos_token_id":1,"eos_token_id":2
    """,
    [0.5536606, -0.4349724, 0.8719031, 0.7707238], 51
  ),
  (
    """
    "model_type":"granite","num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000.0,
    "embedding_multiplier":12.0,"logits_scaling":8.0,"residual_multiplier":0.22,"attention_multiplier":0.2,
    "tie_word_embeddings":true
    """,
    [0.0555159, -0.1051757, -0.0591680, 0.0809620], 4
  ),
]
