"""The networks that coverage.py looks at, biggest last."""

from __future__ import annotations

SIZES = {
    "torchvision:inception_v3": 299,
    "torchvision:maxvit_t": 224,
    **{f"torchvision:vit_{n}": 224 for n in ("b_16", "b_32", "l_16", "l_32")},
    "torchvision:vit_h_14": 224,
    "dense:ssdlite320_mobilenet_v3_large": 320,
    "dense:fcn_resnet50": 96,
    "dense:retinanet_resnet50_fpn": 128,
    "dense:retinanet_resnet50_fpn_v2": 128,
    "dense:fcos_resnet50_fpn": 128,
}

BIG = (
    "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn resnext101_32x8d resnext101_64x4d wide_resnet101_2 "
    "efficientnet_v2_l convnext_large regnet_x_32gf regnet_y_32gf vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14 regnet_y_128gf"
).split()


def classifiers() -> list[str]:
    """All of torchvision's, the large ones at the end."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision:{n}" for n in sorted(names, key=lambda n: (BIG.index(n) + 1 if n in BIG else 0, n))]


DENSE = [
    f"dense:{n}"
    for n in (
        "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50 fcn_resnet101 deeplabv3_resnet50 "
        "deeplabv3_resnet101 ssdlite320_mobilenet_v3_large retinanet_resnet50_fpn retinanet_resnet50_fpn_v2 "
        "fcos_resnet50_fpn"
    ).split()
]

TIMM = [
    f"timm:{n}"
    for n in (
        # residual
        "resnet18d resnet26t resnet50d resnet50_gn seresnet50 ecaresnet26t skresnet18 resnetblur50 resnetaa50d "
        "resnext50_32x4d resnetv2_50 resnetv2_50d_gn resnetv2_50x1_bit resnetrs50 legacy_seresnet18 gernet_s "
        "gcresnet33ts resnet33ts seresnext26d_32x4d tresnet_m "
        # several scales, split attention
        "res2net50_26w_4s res2next50 resnest14d resnest26d hrnet_w18_small hrnet_w18_small_v2 dla34 dla46_c dla60x "
        "dla60_res2net selecsls42b "
        # regular
        "regnetx_004 regnety_004 regnetz_b16 regnetv_040 "
        # concatenating
        "vovnet39a ese_vovnet19b_dw cspresnet50 cspresnext50 cspdarknet53 cs3darknet_s darknet53 densenet121 "
        "densenetblur121d dpn48b dpn68 hgnet_tiny hgnetv2_b0 rexnet_100 rexnetr_200 "
        # mobile
        "ghostnet_100 ghostnetv2_100 repghostnet_100 mobilenetv1_100 mobilenetv2_100 mobilenetv3_large_100 "
        "mobilenetv4_conv_small mobilenetv4_conv_medium mobilenetv4_conv_blur_medium efficientnet_b0 tf_efficientnet_b0 "
        "efficientnet_lite0 efficientnet_es tf_efficientnetv2_b0 efficientnetv2_rw_t mixnet_s tf_mixnet_s mnasnet_100 "
        "fbnetc_100 fbnetv3_b spnasnet_100 semnasnet_100 tinynet_a hardcorenas_a lcnet_100 mobileone_s0 repvgg_a0 repvit_m0_9 "
        # free of norms, with layer norms, mixers
        "nfnet_l0 eca_nfnet_l0 nf_resnet26 nf_regnet_b0 dm_nfnet_f0 convnext_atto convnext_femto_ols convnextv2_atto "
        "inception_next_atto fasternet_t0 starnet_s1 poolformer_s12 poolformerv2_s12 convmixer_1024_20_ks9_p14 mambaout_femto "
        "focalnet_tiny_srf edgenext_xx_small xcit_nano_12_p16_224 "
        # inception and xception
        "inception_v3 inception_v4 inception_resnet_v2 xception41 xception41p legacy_xception nasnetalarge pnasnet5large "
        "vgg11_bn "
        # attention
        "botnet26t_256 halonet26t lambda_resnet26t bat_resnext26ts mobilenetv4_hybrid_medium mobilevit_xxs mobilevitv2_050 "
        "efficientvit_b0 coatnet_nano_rw_224 levit_128 tiny_vit_5m_224 vit_tiny_patch16_224"
    ).split()
]

SIZES |= {
    f"timm:{n}": 224
    for n in (
        "xcit_nano_12_p16_224 coatnet_nano_rw_224 levit_128 tiny_vit_5m_224 vit_tiny_patch16_224 "
        "lambda_resnet26t bat_resnext26ts "
    ).split()
}
SIZES |= {"timm:botnet26t_256": 256, "timm:halonet26t": 256, "timm:inception_resnet_v2": 96, "timm:inception_v4": 96}
SIZES |= {"timm:inception_v3": 96, "timm:pnasnet5large": 96, "timm:nasnetalarge": 96}
